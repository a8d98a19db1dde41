// A program of the CPU target closed while a step runs: the step ends first, nothing is freed under its threads.
import { describe, expect, test } from 'vitest';
import { goldenPath } from '../../../test/support/golden.ts';
import { openResources } from '../../base/dispose.ts';
import { compile } from '../../compile/build.ts';
import { castTensor } from '../../define/checkpoint/cast.ts';
import { openCheckpoint } from '../../define/checkpoint/open.ts';
import { readWeight } from '../../define/checkpoint/weights.ts';
import { findCCompiler } from '../jit/cc-compiler.ts';
import type { Program } from '../target.ts';
import { cpuTargetWith } from './target.ts';

const T = 400;

async function open(kernels: 'native' | 'wasm'): Promise<{ program: Program; close(): Promise<void> }> {
  using checkpoint = await openCheckpoint(goldenPath('llama'));
  const target = cpuTargetWith(() => kernels);
  const { plan, graph } = compile(checkpoint, target, { maxSeqLen: T, maxNumTokens: T, maxBatchSize: 1 });
  const weights = new Map(graph.weights.map((weight) => [weight.value.name, weight]));
  const device = await target.open({ threads: 2 });
  const program = await device.load({
    plan,
    numBlocks: Math.ceil(T / plan.tokensPerBlock),
    readWeight: (name) => {
      const { from, value } = weights.get(name)!;
      return castTensor(readWeight(from, checkpoint.tensors), value.dtype).data;
    },
  });
  const count = Int32Array.from({ length: T }, (_, i) => i);
  program.write(
    'tokens',
    count.map((i) => i % 250),
    T,
  );
  for (const input of ['positions', 'cacheSlots']) program.write(input, count, T);
  program.write('logitsRows', count, 1);
  program.write('requestOffsets', Int32Array.of(0, T), 2);
  program.write('contextLengths', Int32Array.of(T), 1);
  program.write('blockTables', count, Math.ceil(T / plan.tokensPerBlock));
  return {
    program,
    close: async () => {
      await program[Symbol.asyncDispose]();
      await device[Symbol.asyncDispose]();
    },
  };
}

describe.each(['native', 'wasm'] as const)('%s kernels', (kernels) => {
  test.skipIf(kernels === 'native' && findCCompiler() instanceof Error)(
    'are closed after the step that runs',
    async () => {
      const before = openResources();
      for (let i = 0; i < 5; i++) {
        const { program, close } = await open(kernels);
        let done = false;
        const step = program.run('forward', { T, R: 1, L: 1 }).then(() => {
          done = true;
        });
        await close();
        await step;
        expect(done).toBe(true);
        await expect(program.run('forward', { T, R: 1, L: 1 })).rejects.toThrow(/closed/);
      }
      expect(openResources()).toEqual(before);
    },
  );
});
