// The WebAssembly module is that of its sources, and its kernels sort, pack and share work as the native ones do.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { DType } from '../../base/dtype.ts';
import { hashTexts, includeClosure, packageKernels } from '../jit/sources.ts';
import { weightFormats } from './kernels.ts';
import { panelBytes, rowsTogether } from './layout.ts';
import { openWasmHost, openWasmPacker } from './wasm.ts';

const wasm = (name: string): Buffer => readFileSync(new URL(`./wasm/${name}`, import.meta.url));

test('the module is made from the sources that are here, and small', () => {
  const tree = packageKernels();
  const entry = 'generic/kernels.c';
  const closure = includeClosure(tree, tree.read(entry)!, entry);
  const shims = ['math.h', 'stdlib.h', 'string.h'].map((name) => tree.read(`include/wasm/${name}`)!);
  const made = JSON.parse(wasm('kernels.json').toString());
  const sources = hashTexts([tree.read(entry)!, ...[...closure].flat(), ...shims]);
  expect(made.sources, 'the kernels changed: npm run wasm makes the module anew (apt install clang-19 lld-19)').toBe(
    sources,
  );
  expect(wasm('kernels.wasm.gz').length).toBe(made.bytes);
  expect(made.bytes).toBeLessThan(300_000);
});

describe('openWasmPacker', () => {
  test.each(Object.keys(weightFormats) as DType[])('%s: panels are as large as the layout says', async (dtype) => {
    using packer = await openWasmPacker();
    for (const rows of [1, rowsTogether(dtype), rowsTogether(dtype) + 1]) {
      const from = new Uint8Array(rows * 256 * 4);
      expect(packer.pack(dtype, from, rows, 256).length).toBe(panelBytes(dtype, rows, 256));
    }
  });
});

describe('openWasmHost', () => {
  test('memory grows as it is taken; what is beyond 32 bits is refused with what to do', async () => {
    await using host = await openWasmHost(1);
    const address = host.allocate('activations', 50 << 20);
    expect(address % 64n).toBe(0n);
    expect(host.bytesAt(address, 50 << 20).at(-1)).toBe(0);
    expect(() => host.allocate('weights', 5e9)).toThrow(/out of memory.*4 GiB.*Install a C compiler/);
  });

  test('its threads end with it', async () => {
    for (let i = 0; i < 3; i++) {
      await using host = await openWasmHost(3);
      expect(host.threads).toBe(3);
    }
  });
});
