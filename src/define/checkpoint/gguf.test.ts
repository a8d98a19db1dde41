// GGUF files written by Python's gguf (test/goldens/gguf) against the Hugging Face folders they were made from, and damaged ones.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { openResources } from '../../base/dispose.ts';
import type { DType } from '../../base/dtype.ts';
import { CheckpointError, ConfigError, type TypertError } from '../../base/errors.ts';
import { toFloat32 } from './cast.ts';
import { openGguf } from './gguf.ts';
import { dequantize } from './gguf-blocks.ts';
import { interleavedRow } from './gguf-names.ts';
import { openCheckpoint } from './open.ts';
import type { Checkpoint } from './tensors.ts';

const goldens = fileURLToPath(new URL('../../../test/goldens/', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'typert-gguf-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const open = (path: string): Promise<Checkpoint> => openCheckpoint(path, { cacheDir: folder });

test('every block format unpacks to what gguf.quants.dequantize gives, bit for bit', () => {
  const bytes = readFileSync(join(goldens, 'gguf/blocks.bin'));
  const index = JSON.parse(readFileSync(join(goldens, 'gguf/blocks.json'), 'utf8')) as {
    dtype: DType;
    count: number;
    at: number;
    bytes: number;
  }[];
  expect(index).toHaveLength(10);
  for (const { dtype, count, at, bytes: size } of index) {
    const values = dequantize(dtype, bytes.subarray(at, at + size), count);
    expect(Buffer.from(values.buffer).equals(bytes.subarray(at + size, at + size + 4 * count)), dtype).toBe(true);
  }
});

test('dequantize refuses what is not whole blocks of a block format', () => {
  expect(() => dequantize('q4_0', new Uint8Array(18), 33)).toThrow(CheckpointError);
  expect(() => dequantize('q4_0', new Uint8Array(17), 32)).toThrow(/18 bytes/);
  expect(() => dequantize('float32', new Uint8Array(4), 1)).toThrow(/block format/);
});

test('interleavedRow undoes the pairing of a head of six rows', () => {
  expect([6, 7, 8, 9, 10, 11].map((row) => interleavedRow(row, 6))).toEqual([6, 8, 10, 7, 9, 11]);
});

/** Fields that say the same in other words, or nothing that a model reads. */
const ignored =
  /^(transformers_version|use_cache|dtype|initializer_range|pad_token_id|pretraining_tp|.*dropout.*|.*_pdrop|summary_.*|n_inner|is_decoder|max_window_layers|output_router_logits|router_.*|add_cross_attention|reorder_and_upcast_attn|use_bidirectional_attention|layer_types|rope_parameters|head_dim)$/;

describe('a GGUF is the Hugging Face folder it was made from', () => {
  const cases: [file: string, tolerance: number][] = [
    ['llama', 0],
    ['llama.q8_0', 2e-2],
    ['llama-tied-rope-llama3', 0],
    ['llama-yarn-bias', 0],
    ['qwen3', 0],
    ['gemma2', 0],
    ['gpt2.q8_0', 2e-2],
    ['gpt-neox', 0],
    ['phi3-longrope', 0],
    ['mixtral.q8_0', 2e-2],
    ['qwen3-moe.q8_0', 2e-2],
  ];
  for (const [name, tolerance] of cases) {
    const reference = join(goldens, name.split('.')[0]!);
    // The Hugging Face case must be in test/goldens to be compared with.
    test.skipIf(!existsSync(reference))(name, async () => {
      using hf = await open(reference);
      using gguf = await open(join(goldens, `gguf/${name}.gguf`));
      expect(gguf.format).toBe('gguf');
      expect([...gguf.tensors.tensors.keys()].sort()).toEqual([...hf.tensors.tensors.keys()].sort());
      for (const [tensor, info] of hf.tensors.tensors) {
        const other = gguf.tensors.tensors.get(tensor)!;
        expect(other.shape, tensor).toEqual(info.shape);
        const expected = toFloat32({ ...info, data: hf.tensors.read(tensor) });
        const stored = gguf.tensors.read(tensor);
        expect(stored.length).toBe(other.bytes);
        const got = toFloat32({ ...other, data: stored });
        const worst = expected.reduce((most, value, i) => Math.max(most, Math.abs(value - got[i]!)), 0);
        expect(worst, tensor).toBeLessThanOrEqual(tolerance);
        const rowBytes = other.bytes / other.shape[0]!;
        const part = gguf.tensors.read(tensor, rowBytes, 2 * rowBytes);
        expect(Buffer.from(part).equals(stored.subarray(rowBytes, 3 * rowBytes))).toBe(true);
      }
      for (const [field, value] of Object.entries(hf.config)) {
        if (!ignored.test(field)) expect(gguf.config[field], field).toEqual(value);
      }
      expect(JSON.parse(gguf.assets.get('generation_config.json')!)).toEqual({ bos_token_id: 1, eos_token_id: 2 });
    });
  }

  test('rotary embeddings keep their scaling', async () => {
    const rope = async (name: string): Promise<unknown> => {
      using checkpoint = await open(join(goldens, `gguf/${name}.gguf`));
      return checkpoint.config.rope_parameters;
    };
    expect(await rope('llama-tied-rope-llama3')).toMatchObject({
      rope_type: 'factors',
      rope_theta: 500000,
      factors: [1, expect.closeTo(2.4423, 4), 8, 8, 8, 8, 8, 8],
    });
    expect(await rope('llama-yarn-bias')).toMatchObject({
      rope_type: 'yarn',
      factor: 4,
      original_max_position_embeddings: 64,
    });
    expect(await rope('phi3-longrope')).toMatchObject({
      rope_type: 'longrope',
      long_factor: [1, 1.4, 1.8, 2.2, 2.6, 3, 3.4, 3.8],
      original_max_position_embeddings: 4,
    });
    expect(await rope('gpt-neox')).toMatchObject({ rope_type: 'default', partial_rotary_factor: 0.25 });
  });
});

/** A GGUF made by hand: what each test changes is a parameter. */
function gguf(parts: { magic?: string; version?: number; tensors?: bigint; keys?: bigint; body?: Buffer }): string {
  const head = Buffer.alloc(24);
  head.write(parts.magic ?? 'GGUF', 'latin1');
  head.writeUInt32LE(parts.version ?? 3, 4);
  head.writeBigUInt64LE(parts.tensors ?? 0n, 8);
  head.writeBigUInt64LE(parts.keys ?? 0n, 16);
  const path = join(folder, 'x.gguf');
  writeFileSync(path, Buffer.concat([head, parts.body ?? Buffer.alloc(64)]));
  return path;
}
const u32 = (value: number): Buffer => Buffer.from(Uint32Array.of(value).buffer);
const u64 = (value: bigint): Buffer => Buffer.from(BigUint64Array.of(value).buffer);
const text = (value: string): Buffer => Buffer.concat([u64(BigInt(Buffer.byteLength(value))), Buffer.from(value)]);
const tensor = (name: string, sizes: bigint[], type: number, offset: bigint): Buffer =>
  Buffer.concat([text(name), u32(sizes.length), ...sizes.map(u64), u32(type), u64(offset)]);

describe('a damaged GGUF is refused', () => {
  const llama = (): Buffer => readFileSync(join(goldens, 'gguf/llama.gguf'));
  const cases: Record<string, [path: () => string, message: RegExp]> = {
    'not a GGUF': [() => gguf({ magic: 'ABCD' }), /not a GGUF file; expected the letters GGUF/],
    'version 1': [() => gguf({ version: 1 }), /GGUF version 1; expected version 2 or 3/],
    'version 4': [() => gguf({ version: 4 }), /unknown GGUF version.*got version 4.*Update TypeRT/],
    'big-endian': [() => gguf({ version: 0x03000000 }), /big-endian.*convert-endian/],
    'absurd tensor count': [() => gguf({ tensors: 2n ** 60n }), /absurd tensor count.*got 1152921504606846976/],
    'absurd key count': [() => gguf({ keys: 2n ** 40n }), /absurd metadata count/],
    'absurd string': [
      () => gguf({ keys: 1n, body: Buffer.concat([u64(2n ** 62n), Buffer.alloc(64)]) }),
      /absurd length of a key/,
    ],
    'absurd array': [
      () => gguf({ keys: 1n, body: Buffer.concat([text('a'), u32(9), u32(10), u64(2n ** 50n), Buffer.alloc(64)]) }),
      /absurd count of "a"/,
    ],
    'unknown value type': [
      () => gguf({ keys: 1n, body: Buffer.concat([text('a'), u32(13), Buffer.alloc(64)]) }),
      /unknown type of "a"/,
    ],
    'nested arrays': [
      () =>
        gguf({
          keys: 1n,
          body: Buffer.concat([
            text('a'),
            ...Array.from({ length: 9 }, () => Buffer.concat([u32(9), u32(9), u64(1n)])),
            Buffer.alloc(64),
          ]),
        }),
      /nested too deeply|unknown type|absurd/,
    ],
    'a key twice': [
      () =>
        gguf({
          keys: 2n,
          body: Buffer.concat([text('a'), u32(0), Buffer.alloc(1), text('a'), u32(0), Buffer.alloc(64)]),
        }),
      /key comes twice/,
    ],
    'bad alignment': [
      () => gguf({ keys: 1n, body: Buffer.concat([text('general.alignment'), u32(4), u32(7), Buffer.alloc(64)]) }),
      /power of two/,
    ],
    'too many axes': [
      () => gguf({ tensors: 1n, body: tensor('t', [1n, 1n, 1n, 1n, 1n], 0, 0n) }),
      /too many axes; expected at most 4/,
    ],
    'a type that is not read': [
      () => gguf({ tensors: 1n, body: tensor('t', [256n], 16, 0n) }),
      /type that is not read.*got IQ2_XXS.*Q4_K_M/,
    ],
    'an unknown type': [() => gguf({ tensors: 1n, body: tensor('t', [32n], 99, 0n) }), /got type 99/],
    'a part of a block': [
      () => gguf({ tensors: 1n, body: tensor('t', [33n], 2, 0n) }),
      /multiple of 32 elements for q4_0/,
    ],
    'an absurd size': [() => gguf({ tensors: 1n, body: tensor('t', [2n ** 60n], 0, 0n) }), /absurd size/],
    'data outside the file': [
      () => gguf({ tensors: 1n, body: Buffer.concat([tensor('t', [2n ** 40n], 0, 0n), Buffer.alloc(64)]) }),
      /truncated: tensor "t" lies outside/,
    ],
    'an offset that is not aligned': [
      () => gguf({ tensors: 1n, body: Buffer.concat([tensor('t', [1n], 0, 3n), Buffer.alloc(64)]) }),
      /not aligned.*multiple of 32/,
    ],
    overlap: [
      () =>
        gguf({
          tensors: 2n,
          body: Buffer.concat([tensor('a', [16n], 0, 0n), tensor('b', [16n], 0, 32n), Buffer.alloc(256)]),
        }),
      /overlaps tensor "a"/,
    ],
    'a file cut in its data': [() => cut(llama(), -1000), /truncated/],
    'a file cut in its header': [() => cut(llama(), 300), /truncated|absurd/],
    'an empty file': [() => cut(Buffer.alloc(0), 0), /truncated/],
  };
  function cut(bytes: Buffer, end: number): string {
    const path = join(folder, 'cut.gguf');
    writeFileSync(path, bytes.subarray(0, end < 0 ? bytes.length + end : end));
    return path;
  }
  for (const [name, [path, message]] of Object.entries(cases)) {
    test(name, () => {
      const before = openResources();
      const place = path();
      expect(() => openGguf(place)).toThrow(message);
      try {
        openGguf(place);
      } catch (error) {
        expect(error).toBeInstanceOf(CheckpointError);
        expect((error as TypertError).message).toContain(place);
        expect((error as TypertError).remedy).toBeTruthy();
      }
      expect(openResources()).toEqual(before);
    });
  }

  test('metadata that describes no known model', async () => {
    const nothing = gguf({});
    await expect(open(nothing)).rejects.toThrow(ConfigError);
    const unknown = gguf({
      keys: 1n,
      body: Buffer.concat([text('general.architecture'), u32(8), text('lama'), Buffer.alloc(64)]),
    });
    await expect(open(unknown)).rejects.toThrow(/unknown architecture.*got "lama".*nearest are llama/);
    const bare = gguf({
      keys: 1n,
      body: Buffer.concat([text('general.architecture'), u32(8), text('llama'), Buffer.alloc(64)]),
    });
    await expect(open(bare)).rejects.toThrow(/llama.embedding_length: |metadata is missing/);
    const wrong = gguf({
      keys: 2n,
      body: Buffer.concat([
        text('general.architecture'),
        u32(8),
        text('llama'),
        text('llama.embedding_length'),
        u32(8),
        text('many'),
        Buffer.alloc(64),
      ]),
    });
    await expect(open(wrong)).rejects.toThrow(
      /llama.embedding_length: metadata is of another type; expected one number; got "many"/,
    );
  });
});
