// What a target's epilogues compute is what the separate ops compute: the reference kernels run both ways.
import { expect, test } from 'vitest';
import { compile } from '../../src/compile/build.ts';
import { castTensor } from '../../src/define/checkpoint/cast.ts';
import { openCheckpoint } from '../../src/define/checkpoint/open.ts';
import { readWeight } from '../../src/define/checkpoint/weights.ts';
import { referenceTarget } from '../../src/targets/reference/target.ts';
import type { Epilogue } from '../../src/targets/target.ts';
import { goldenPath } from '../support/golden.ts';

const T = 5;

/** Logits of a step of five tokens of one request. */
async function logitsWith(name: string, epilogues: readonly Epilogue[]): Promise<Float32Array> {
  using checkpoint = await openCheckpoint(goldenPath(name));
  const target = { ...referenceTarget, epilogues };
  const { plan, graph } = compile(checkpoint, target, {
    dtype: 'float32',
    maxSeqLen: 16,
    maxBatchSize: 1,
    tokensPerBlock: 16,
  });
  await using device = await target.open();
  const weights = new Map(graph.weights.map((weight) => [weight.value.name, weight]));
  await using program = await device.load({
    plan,
    numBlocks: 1,
    readWeight: (weight) => {
      const { from, value } = weights.get(weight)!;
      return castTensor(readWeight(from, checkpoint.tensors), value.dtype).data;
    },
  });
  const count = Int32Array.from({ length: T }, (_, i) => i);
  program.write('tokens', Int32Array.of(5, 60, 7, 120, 33), T);
  for (const input of ['positions', 'cacheSlots', 'logitsRows']) program.write(input, count, T);
  program.write('requestOffsets', Int32Array.of(0, T), 2);
  program.write('contextLengths', Int32Array.of(T), 1);
  program.write('blockTables', Int32Array.of(0), 1);
  await program.run('forward', { T, R: 1, L: T });
  const logits = new Float32Array(T * 256);
  await program.read('logits', logits);
  return logits;
}

test.each(['llama', 'llama-yarn-bias', 'gemma', 'phi3'])('%s with gated products', async (name) => {
  expect(await logitsWith(name, ['gated-matmul'])).toEqual(await logitsWith(name, []));
});

const all: readonly Epilogue[] = ['gated-matmul', 'residual-matmul', 'norm-matmul', 'rope-attention'];

test.each(['llama', 'gemma2', 'qwen3', 'phi3', 'gpt2', 'gpt-neox', 'olmo2', 'mixtral'])(
  '%s with everything a target may fuse',
  async (name) => {
    expect(await logitsWith(name, all)).toEqual(await logitsWith(name, []));
  },
);
