// Weights in the engine as kernels read them: packed piece by piece as in one go, mapped when opened, refused when of another layout.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { goldenPath } from '../../../test/support/golden.ts';
import { byteLength, type DType } from '../../base/dtype.ts';
import { buildEngine } from '../../compile/build.ts';
import { openEngine } from '../../compile/engine/read.ts';
import { metadataKeys } from '../../compile/engine/schema.ts';
import { openCheckpoint } from '../../define/checkpoint/open.ts';
import { openSafetensors } from '../../define/checkpoint/safetensors.ts';
import { openSession } from '../../run/session/open.ts';
import type { Plan, PlanTensor } from '../plan.ts';
import { rowsTogether } from './layout.ts';
import { packPieces } from './pack.ts';
import { cpuTarget } from './target.ts';

const folder = mkdtempSync(join(tmpdir(), 'typert-pack-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Says which rows it was given, by the first byte of each. */
function packer(calls: number[][]) {
  return (dtype: DType, from: Uint8Array, rows: number, columns: number): Uint8Array => {
    const rowBytes = byteLength(dtype, columns);
    calls.push(Array.from({ length: rows }, (_, row) => from[row * rowBytes]!));
    return Uint8Array.of(rows);
  };
}

describe('packPieces', () => {
  const weight = (shape: number[], dtype: DType): PlanTensor => ({
    name: 'w',
    dtype,
    shape,
    storage: { kind: 'weight' },
  });

  test.each([
    ['float32', [2, 100, 64]],
    ['q8_0', [3, 70, 32]],
  ] as const)('%s: whatever the pieces, each matrix is cut at whole blocks of rows', (dtype, shape) => {
    const rowBytes = byteLength(dtype, shape[2]);
    const rows = shape[0] * shape[1];
    const data = Uint8Array.from({ length: rows * rowBytes }, (_, i) => Math.floor(i / rowBytes) % 251);
    const run = (sizes: readonly number[]): number[][] => {
      const calls: number[][] = [];
      const pieces: Uint8Array[] = [];
      for (let at = 0, i = 0; at < data.length; at += sizes[i++ % sizes.length]!)
        pieces.push(data.subarray(at, at + sizes[i % sizes.length]!));
      const out = [...packPieces(packer(calls), weight([...shape], dtype), pieces)];
      expect(out).toHaveLength(calls.length);
      return calls;
    };
    const whole = run([data.length]);
    expect(whole.flat()).toEqual(Array.from({ length: rows }, (_, row) => row % 251));
    expect(whole).toHaveLength(shape[0]);
    for (const sizes of [[rowBytes], [7, 1000, 13], [rowBytes * 33 + 5]]) expect(run(sizes)).toEqual(whole);
  });

  test('large matrices are cut, and only between blocks of rows', () => {
    const calls: number[][] = [];
    const [rows, columns] = [1000, 16384];
    const data = new Uint8Array(rows * columns * 2);
    [...packPieces(packer(calls), weight([rows, columns], 'bfloat16'), [data])];
    expect(calls.length).toBeGreaterThan(3);
    for (const call of calls.slice(0, -1)) expect(call.length % rowsTogether('bfloat16')).toBe(0);
  });

  test('a weight that ends within a row is refused', () => {
    const short = new Uint8Array(64 * 4 * 3 - 1);
    expect(() => [...packPieces(packer([]), weight([3, 64], 'float32'), [short])]).toThrow(/ends within a row/);
  });
});

const status = cpuTarget.probe();
describe.skipIf(!status.available)('an engine of the CPU target', () => {
  const engineDir = join(folder, 'engine');
  const greedy = async (dir: string): Promise<number> => {
    await using session = await openSession({ engineDir: dir, target: 'auto' });
    const one = Int32Array.of(0);
    await session.forward({
      numTokens: 1,
      numRequests: 1,
      numLogits: 1,
      tokens: Int32Array.of(60),
      positions: one,
      requestOffsets: Int32Array.of(0, 1),
      contextLengths: Int32Array.of(1),
      blockTables: new Int32Array(session.limits.maxBlocksPerSequence),
      cacheSlots: one,
      logitsRows: one,
      sampling: {
        temperature: Float32Array.of(0),
        topK: one,
        topP: Float32Array.of(1),
        minP: Float32Array.of(0),
        seedLow: new Uint32Array(1),
        seedHigh: new Uint32Array(1),
        counter: new Uint32Array(1),
      },
    } as never);
    const { tokens } = await session.sample();
    return tokens[0]!;
  };
  /** Rewrites the header of a copy of the engine. */
  const changed = (name: string, change: (header: Record<string, Record<string, string>>) => void): string => {
    const dir = join(folder, name);
    cpSync(engineDir, dir, { recursive: true });
    const path = join(dir, 'rank0.engine');
    const bytes = readFileSync(path);
    const length = Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.subarray(8, 8 + length).toString());
    change(header);
    const text = Buffer.from(JSON.stringify(header));
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(text.length));
    writeFileSync(path, Buffer.concat([size, text, bytes.subarray(8 + length)]));
    return dir;
  };

  test('holds its weights in panels, in a valid safetensors file, aligned for the kernels', async () => {
    using checkpoint = await openCheckpoint(goldenPath('llama'), { cacheDir: folder });
    await buildEngine({ checkpoint, target: cpuTarget, engineDir, build: { maxSeqLen: 32, maxBatchSize: 2 } });
    using file = openSafetensors(join(engineDir, 'rank0.engine'));
    using engine = openEngine(engineDir);
    const { plan } = engine;
    const packed = plan.tensors.filter(({ storage }) => storage.kind === 'weight');
    expect(packed.length).toBeGreaterThan(10);
    for (const { name, storage, shape } of packed) {
      const layout = storage.kind === 'weight' ? storage.packed!.layout : '';
      expect(layout).toBe(shape.length > 1 ? 'cpu-panels-2' : 'float32');
      if (layout !== 'float32') expect(file.offsetOf(name) % 64).toBe(0);
    }
  });

  test('runs the same when its tensors lie where they cannot be mapped', async () => {
    const shifted = changed('shifted', (header) => {
      header.__metadata__!.padding = '';
      while ((8 + Buffer.byteLength(JSON.stringify(header))) % 64 !== 4) header.__metadata__!.padding += ' ';
    });
    using file = openSafetensors(join(shifted, 'rank0.engine'));
    const name = [...file.tensors.keys()].find((key) => key.endsWith('.weight'))!;
    expect(file.offsetOf(name) % 64).not.toBe(0);
    expect(await greedy(shifted)).toBe(await greedy(engineDir));
  });

  test('is refused when it is laid out for other kernels, with what to do', async () => {
    const other = changed('other', (header) => {
      const metadata = header.__metadata__!;
      const plan = JSON.parse(metadata[metadataKeys.plan]!) as Plan;
      metadata[metadataKeys.plan] = JSON.stringify(plan).replaceAll('cpu-panels-2', 'cpu-panels-0');
    });
    await expect(greedy(other)).rejects.toThrow(
      /laid out for other kernels; expected cpu-panels-2; got cpu-panels-0\. Build the engine again/,
    );
  });
});
