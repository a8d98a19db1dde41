// Which weights are quantised, what is refused, and that the engine then computes nearly the same.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { goldenPath } from '../../../test/support/golden.ts';
import { CompileError } from '../../base/errors.ts';
import { openCheckpoint } from '../../define/checkpoint/open.ts';
import type { GraphWeight } from '../../define/graph/graph.ts';
import { cpuTarget } from '../../targets/cpu/target.ts';
import { cudaTarget } from '../../targets/cuda/target.ts';
import { referenceTarget } from '../../targets/reference/target.ts';
import type { Target } from '../../targets/target.ts';
import { type BuildConfig, buildEngine, type Compiled, compile } from '../build.ts';
import { openEngine } from '../engine/read.ts';
import type { QuantConfig } from '../quantization.ts';

const folder = mkdtempSync(join(tmpdir(), 'typert-quantize-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function compiled(name: string, quantConfig: QuantConfig, target: Target = referenceTarget): Promise<Compiled> {
  using checkpoint = await openCheckpoint(goldenPath(name), { cacheDir: folder });
  const build: BuildConfig = { maxSeqLen: 32, maxBatchSize: 2, quantConfig };
  return compile(checkpoint, target, build);
}
const names = (weights: readonly GraphWeight[], dtype: string): string[] =>
  weights.filter(({ value }) => value.dtype === dtype).map(({ value }) => value.name);

describe('weight-only quantisation', () => {
  test('takes the weights of products, and leaves embedding, head, norms and biases', async () => {
    const { graph } = await compiled('llama', { quantAlgo: 'W4A16', groupSize: 64 });
    const layer = (n: number): string[] => [
      `transformer.layers.${n}.attention.q+k+v.weight`,
      `transformer.layers.${n}.attention.dense.weight`,
      `transformer.layers.${n}.mlp.fc+gate.weight`,
      `transformer.layers.${n}.mlp.proj.weight`,
    ];
    const quantised = names(graph.weights, 'w4_64');
    expect(quantised.sort()).toEqual([...layer(0), ...layer(1)].sort());
    expect(names(graph.weights, 'bfloat16')).toContain('lm_head.weight');
  });

  test('takes experts, and leaves the router', async () => {
    const { graph } = await compiled('mixtral', { quantAlgo: 'W8A16', hasZeroPoint: true });
    const quantised = names(graph.weights, 'w8z_32');
    expect(quantised.some((name) => name.endsWith('mlp.fc.weight'))).toBe(true);
    expect(quantised.some((name) => name.includes('router'))).toBe(false);
  });

  test('leaves what is excluded, and a head that is the embedding as well', async () => {
    const excluded = await compiled('llama', { quantAlgo: 'W8A16', excludeModules: ['mlp.*'] });
    const quantised = names(excluded.graph.weights, 'q8_0');
    expect(quantised).toContain('lm_head.weight');
    expect(quantised.some((name) => name.includes('attention'))).toBe(true);
    expect(quantised.some((name) => name.includes('mlp'))).toBe(false);
    const tied = await compiled('llama-tied-rope-llama3', { quantAlgo: 'W8A16', excludeModules: [] });
    expect(names(tied.graph.weights, 'q8_0').some((name) => /vocab|lm_head|embed/.test(name))).toBe(false);
  });

  test('marks products whose activations stay floats', async () => {
    const { plan } = await compiled('llama', { quantAlgo: 'W4A16', activations: 'float' }, cpuTarget);
    const products = plan.phases.forward.filter(({ op }) => op === 'matmul');
    const head = products.filter(({ attrs }) => !('exact' in attrs));
    expect(head).toHaveLength(1);
    expect(products[0]!.kernel.config).toMatchObject({ weight: 'W_Q4_0', exact: 1 });
  });

  test.each([
    [
      'a group that does not divide the columns',
      'llama',
      { quantAlgo: 'W4A16', groupSize: 128 },
      /multiple of 128; got \[\d+,64\]\. Use a group size of 64 or 32/,
    ],
    ['a size of groups there is not', 'llama', { quantAlgo: 'W4A16', groupSize: 48 }, /groupSize.*32, 64, 128; got 48/],
    ['an algorithm there is not', 'llama', { quantAlgo: 'W3A16' }, /quantAlgo.*W8A16 or W4A16; got W3A16/],
    ['a group size without an algorithm', 'llama', { groupSize: 64 }, /groupSize.*quantAlgo beside it/],
  ])('refuses %s', async (_what, name, config, message) => {
    const refused = compiled(name, config as QuantConfig);
    await expect(refused).rejects.toThrow(CompileError);
    await expect(refused).rejects.toThrow(message);
  });

  test('refuses a target without kernels for it', async () => {
    await expect(compiled('llama', { quantAlgo: 'W4A16', groupSize: 64 }, cudaTarget)).rejects.toThrow(
      /target cuda has no kernels for weights of this kind; .*--target cpu/,
    );
  });

  test('is in the engine, in TensorRT-LLM’s words, at its bits', async () => {
    using checkpoint = await openCheckpoint(goldenPath('llama'), { cacheDir: folder });
    const sizes: number[] = [];
    for (const quantConfig of [{}, { quantAlgo: 'W8A16' }, { quantAlgo: 'W4A16', groupSize: 64, hasZeroPoint: true }]) {
      const engineDir = join(folder, `engine-${sizes.length}`);
      const build = { maxSeqLen: 32, maxBatchSize: 2, quantConfig } as BuildConfig;
      await buildEngine({ checkpoint, target: referenceTarget, engineDir, build });
      using engine = openEngine(engineDir);
      sizes.push(engine.weightBytes);
      if (sizes.length === 3)
        expect(engine.config.pretrained_config.quantization).toEqual({
          quant_algo: 'W4A16',
          group_size: 64,
          has_zero_point: true,
          exclude_modules: ['lm_head'],
          activations: 'auto',
        });
    }
    expect(sizes[1]).toBeLessThan(sizes[0]! * 0.8);
    expect(sizes[2]).toBeLessThan(sizes[1]!);
  });
});
