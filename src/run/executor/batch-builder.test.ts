import { describe, expect, it } from 'vitest';
import type { SessionLimits } from '../session/batch.ts';
import { BatchBuilder } from './batch-builder.ts';
import { checkRequest } from './request.ts';
import { Scheduler } from './scheduler.ts';

const limits: SessionLimits = {
  maxBatchSize: 4,
  maxNumTokens: 16,
  maxNumLogits: 16,
  maxSeqLen: 32,
  tokensPerBlock: 4,
  maxBlocksPerSequence: 8,
  numBlocks: 16,
  vocabSize: 32,
};

describe('BatchBuilder', () => {
  it('packs a context with prompt logits and samples for two sequences, then their generation beside a new context', () => {
    const scheduler = new Scheduler(limits);
    const builder = new BatchBuilder(limits);
    const add = (requestId: number, promptTokenIds: number[], samplingParams = {}) => {
      const { params, ...rest } = checkRequest({ promptTokenIds, samplingParams }, limits);
      scheduler.add({ requestId, ...rest, params: { ...params, seed: 0xffffffffn }, arrivalTime: 0 });
    };
    add(1, [5, 6, 7, 8, 9], { n: 2, temperature: 0.5, topK: 3, promptLogprobs: 0, maxTokens: 4 });
    const first = scheduler.schedule();
    const batch = builder.build(first);
    expect([batch.numTokens, batch.numRequests, batch.numLogits]).toEqual([5, 1, 6]);
    expect([...batch.tokens.subarray(0, 5)]).toEqual([5, 6, 7, 8, 9]);
    expect([...batch.positions.subarray(0, 5)]).toEqual([0, 1, 2, 3, 4]);
    expect([...batch.cacheSlots.subarray(0, 5)]).toEqual([0, 1, 2, 3, 4]);
    expect([...batch.requestOffsets.subarray(0, 2)]).toEqual([0, 5]);
    // The last prompt row is the first sample's; the second sample draws from a row of its own at the same token.
    expect([...batch.logitsRows.subarray(0, 6)]).toEqual([0, 1, 2, 3, 4, 4]);
    expect([...batch.sampling.temperature.subarray(0, 6)]).toEqual([0, 0, 0, 0, 0.5, 0.5]);
    expect([...batch.sampling.topK.subarray(4, 6)]).toEqual([3, 3]);
    expect([...batch.sampling.seedLow.subarray(4, 6)]).toEqual([0xffffffff, 0]);
    expect([...batch.sampling.seedHigh.subarray(4, 6)]).toEqual([0, 1]);
    expect([...batch.sampling.counter.subarray(4, 6)]).toEqual([0, 0]);

    first.entries[0]!.samples.forEach((sequence, i) => {
      scheduler.append(sequence, 20 + i);
    });
    add(2, [1, 2]);
    const second = scheduler.schedule();
    const next = builder.build(second);
    expect([next.numTokens, next.numRequests, next.numLogits]).toEqual([4, 3, 3]);
    expect([...next.tokens.subarray(0, 4)]).toEqual([20, 21, 1, 2]);
    expect([...next.positions.subarray(0, 4)]).toEqual([5, 5, 0, 1]);
    expect([...next.contextLengths.subarray(0, 3)]).toEqual([6, 6, 2]);
    expect([...next.logitsRows.subarray(0, 3)]).toEqual([0, 1, 3]);
    expect([...next.sampling.counter.subarray(0, 3)]).toEqual([1, 1, 0]);
    // The first sequence to write got a copy of the shared second block.
    expect(second.copies).toEqual([{ kind: 'device', from: Int32Array.of(1), to: Int32Array.of(2) }]);
    expect([next.blockTables[0], next.blockTables[1]]).toEqual([0, 2]);
    expect([next.blockTables[8], next.blockTables[9]]).toEqual([0, 1]);
    expect([...next.cacheSlots.subarray(0, 4)]).toEqual([9, 5, 12, 13]);
  });
});
