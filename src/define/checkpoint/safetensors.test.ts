import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { openResources } from '../../base/dispose.ts';
import { CheckpointError } from '../../base/errors.ts';
import { openSafetensors, shardedSafetensors } from './safetensors.ts';
import { layoutOrder, type TensorToWrite, writeSafetensors } from './safetensors-write.ts';

const folder = mkdtempSync(join(tmpdir(), 'typert-safetensors-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let count = 0;

/** A file with this header and so many bytes of data; returns its path. */
function file(header: string | Uint8Array, dataBytes: number, headerBytes?: number): string {
  const json = typeof header === 'string' ? new TextEncoder().encode(header) : header;
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(headerBytes ?? json.length));
  const path = join(folder, `case-${count++}.safetensors`);
  writeFileSync(path, Buffer.concat([head, json, Buffer.alloc(dataBytes)]));
  return path;
}

function refusal(path: string): string {
  const open = openResources();
  try {
    openSafetensors(path)[Symbol.dispose]();
  } catch (error) {
    expect(error).toBeInstanceOf(CheckpointError);
    const { message } = error as Error;
    expect(message).toContain(path);
    expect((error as CheckpointError).expected).toBeTruthy();
    expect((error as CheckpointError).remedy).toBeTruthy();
    expect(openResources()).toEqual(open);
    return message;
  }
  throw new Error('was accepted');
}

const tensor = (dtype: string, shape: unknown, offsets: unknown): object => ({ dtype, shape, data_offsets: offsets });
const one = (value: unknown): string => JSON.stringify({ w: value });

describe('a file that breaks the format is refused with what was expected and what to do', () => {
  const cases: Record<string, [path: () => string, message: RegExp]> = {
    'missing file': [() => join(folder, 'nothing.safetensors'), /no such file.*Check the path/],
    'a folder': [() => folder, /regular file; got a folder/],
    'shorter than its length field': [
      () => {
        const path = join(folder, 'short.safetensors');
        writeFileSync(path, 'abc');
        return path;
      },
      /truncated; expected a safetensors file of at least 8 bytes; got 3 bytes/,
    ],
    'header beyond the file': [() => file('{}', 0, 5000), /truncated; expected a header of 5000 bytes/],
    'header too long': [() => file('{}', 0, 200_000_000), /header is too long.*at most 100000000 bytes; got 200000000/],
    'header of 2^63 bytes': [
      () => {
        const path = file('{}', 0);
        const bytes = readFileSync(path);
        bytes[7] = 0x80;
        writeFileSync(path, bytes);
        return path;
      },
      /header is too long/,
    ],
    'header not UTF-8': [() => file(new Uint8Array([0x7b, 0xff, 0x7d]), 0), /not UTF-8/],
    'header not JSON': [() => file('{"w":', 0), /not valid JSON/],
    'header an array': [() => file('[]', 0), /not a JSON object/],
    'header nested deeply': [
      () => file(`{"w":${'['.repeat(5000)}${']'.repeat(5000)}}`, 0),
      /nested too deeply.*at most 64 levels/,
    ],
    'truncated data': [() => file(one(tensor('F32', [4], [0, 16])), 12), /bad data_offsets.*12/],
    'bytes after the last tensor': [() => file(one(tensor('F32', [4], [0, 16])), 20), /bytes after the last tensor/],
    'unknown dtype': [() => file(one(tensor('F7', [4], [0, 16])), 16), /unknown dtype.*F32.*got "F7"/],
    'shape not a list': [() => file(one(tensor('F32', 4, [0, 16])), 16), /bad shape/],
    'negative size': [() => file(one(tensor('F32', [-4], [0, 16])), 16), /bad shape.*non-negative integers/],
    'fractional size': [() => file(one(tensor('F32', [0.5], [0, 2])), 2), /bad shape/],
    'size beyond 2^53': [() => file('{"w":{"dtype":"F32","shape":[1e300],"data_offsets":[0,16]}}', 16), /bad shape/],
    'product beyond 2^53': [
      () => file(one(tensor('F32', [2 ** 40, 2 ** 40], [0, 16])), 16),
      /does not match its shape/,
    ],
    'offsets swapped': [() => file(one(tensor('F32', [4], [16, 0])), 16), /bad data_offsets/],
    'wrong number of bytes': [
      () => file(one(tensor('F32', [4], [0, 12])), 12),
      /expected 16 bytes for F32 \[4\]; got 12 bytes/,
    ],
    overlap: [
      () => file(JSON.stringify({ a: tensor('U8', [4], [0, 4]), b: tensor('U8', [4], [2, 6]) }), 6),
      /overlap.*"b"|"b".*overlap/,
    ],
    hole: [() => file(JSON.stringify({ a: tensor('U8', [4], [0, 4]), b: tensor('U8', [4], [6, 10]) }), 10), /hole/],
    'metadata not strings': [() => file('{"__metadata__":{"a":1}}', 0), /bad __metadata__/],
    'entry not an object': [() => file('{"w":3}', 0), /not described/],
  };
  for (const [name, [path, message]] of Object.entries(cases)) {
    test(name, () => {
      expect(refusal(path())).toMatch(message);
    });
  }
});

describe('writeSafetensors', () => {
  const tensors: TensorToWrite[] = [
    { name: 'odd', dtype: 'U8', shape: [3], bytes: 3 },
    { name: 'matrix', dtype: 'F32', shape: [4, 16], bytes: 256 },
    { name: '7', dtype: 'BF16', shape: [5], bytes: 10 },
    { name: 'empty', dtype: 'F32', shape: [0, 4], bytes: 0 },
    { name: 'name "quoted" é', dtype: 'F16', shape: [64], bytes: 128 },
  ];
  const contents = (t: TensorToWrite): Uint8Array =>
    Uint8Array.from({ length: t.bytes }, (_, i) => (i * 31 + t.name.length) & 255);

  test('what it writes reads back, in pieces or whole, aligned where sizes allow', async () => {
    const path = join(folder, 'written.safetensors');
    const size = await writeSafetensors(path, tensors, { format: 'pt', plan: '{"a":1}' }, async (t) =>
      t.name === 'matrix' ? [contents(t).subarray(0, 100), contents(t).subarray(100)] : contents(t),
    );
    const bytes = readFileSync(path);
    expect(bytes.length).toBe(size);
    const headerBytes = Number(bytes.readBigUInt64LE());
    expect((8 + headerBytes) % 64).toBe(0);
    const header = JSON.parse(bytes.subarray(8, 8 + headerBytes).toString()) as Record<
      string,
      { data_offsets: number[] }
    >;
    expect(header.matrix!.data_offsets[0]! % 64).toBe(0);
    using source = openSafetensors(path);
    expect(source.metadata).toEqual({ format: 'pt', plan: '{"a":1}' });
    for (const t of tensors) {
      expect(source.tensors.get(t.name)).toMatchObject({ shape: t.shape, bytes: t.bytes });
      expect(source.read(t.name)).toEqual(contents(t));
    }
    expect(source.read('matrix', 8, 4)).toEqual(contents(tensors[1]!).subarray(8, 12));
    expect(() => source.read('matrix', 250, 10)).toThrow(/outside a tensor/);
    expect(() => source.read('absent')).toThrow(/missing tensor.*absent/);
  });

  test('elements are aligned too: order falls by element size among the rest', () => {
    expect(layoutOrder(tensors).map((t) => t.name)).toEqual(['empty', 'matrix', 'name "quoted" é', '7', 'odd']);
  });

  test('a full disk is named, with a remedy', async () => {
    const error = await writeSafetensors('/dev/full', tensors, {}, contents).then(
      () => undefined,
      (reason: Error) => reason,
    );
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error?.message).toMatch(/\/dev\/full: cannot be written.*a full disk\. Free space/);
  });

  test('a producer that gives too much, too little or throws leaves nothing behind', async () => {
    const place = join(folder, 'fails');
    mkdirSync(place);
    const path = join(place, 'x.safetensors');
    await expect(writeSafetensors(path, tensors, {}, () => new Uint8Array(1000))).rejects.toThrow(
      /wrong number of bytes/,
    );
    await expect(writeSafetensors(path, tensors, {}, () => new Uint8Array(0))).rejects.toThrow(/wrong number of bytes/);
    const mine = new Error('mine');
    await expect(writeSafetensors(path, tensors, {}, () => Promise.reject(mine))).rejects.toBe(mine);
    await expect(writeSafetensors(path, [{ ...tensors[0]!, bytes: 4 }], {}, contents)).rejects.toThrow(
      /expected 3 bytes/,
    );
    await expect(writeSafetensors(path, [tensors[0]!, tensors[0]!], {}, contents)).rejects.toThrow(/twice/);
    expect(readdirSync(place)).toEqual([]);
    await expect(writeSafetensors(join(place, 'no', 'x'), tensors, {}, contents)).rejects.toThrow(/cannot be written/);
  });
});

describe('shardedSafetensors', () => {
  const place = join(folder, 'sharded');
  mkdirSync(place);
  const index = join(place, 'model.safetensors.index.json');
  const shard = (name: string, tensorName: string): Promise<number> =>
    writeSafetensors(
      join(place, name),
      [{ name: tensorName, dtype: 'U8', shape: [2], bytes: 2 }],
      {},
      () => new Uint8Array([1, 2]),
    );
  const map = (value: unknown): void => writeFileSync(index, JSON.stringify({ weight_map: value }));

  test('joins its files', async () => {
    await shard('model-1.safetensors', 'a');
    await shard('model-2.safetensors', 'b');
    map({ a: 'model-1.safetensors', b: 'model-2.safetensors' });
    using source = shardedSafetensors(index);
    expect([...source.tensors.keys()]).toEqual(['a', 'b']);
    expect(source.read('b', 1, 1)).toEqual(new Uint8Array([2]));
    expect(source.files).toHaveLength(2);
  });

  test('refuses an index that is wrong, and closes what it opened', () => {
    const open = openResources();
    const wrong: [unknown, RegExp][] = [
      [{ a: '../model-1.safetensors' }, /name of a .safetensors file in the same folder/],
      [{ a: '/etc/passwd' }, /name of a .safetensors file/],
      [{ a: '..\\x.safetensors' }, /name of a .safetensors file/],
      [{ a: 7 }, /got 7/],
      [{ a: 'model-3.safetensors' }, /model-3.safetensors: cannot be opened/],
      [{ a: 'model-1.safetensors', b: 'model-1.safetensors' }, /missing tensor; expected tensor b/],
      [{}, /weight_map/],
      [[], /weight_map/],
    ];
    for (const [value, message] of wrong) {
      map(value);
      expect(() => shardedSafetensors(index)).toThrow(message);
      expect(() => shardedSafetensors(index)).toThrow(CheckpointError);
    }
    expect(openResources()).toEqual(open);
  });
});
