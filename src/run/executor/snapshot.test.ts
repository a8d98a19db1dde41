// What somebody who watches the engine is told: who runs, who waits, who holds which block, and where the time of a step goes.
import { describe, expect, it } from 'vitest';
import { FakeSession, type FakeSessionOptions } from '../../../test/support/fake-session.ts';
import { connectInThread } from './connect.ts';
import { Executor } from './executor.ts';
import { blockStates, type EngineSnapshot } from './snapshot.ts';

async function open(options: FakeSessionOptions = {}) {
  const fake = new FakeSession({ stepTime: 1, ...options });
  const session = { engineDir: 'none', target: 'reference' } as const;
  return await Executor.create(
    { session },
    connectInThread(async () => fake),
  );
}

const prompt = [1, 2, 3, 4, 5, 6];

async function until(executor: Executor, wanted: (snapshot: EngineSnapshot) => boolean): Promise<EngineSnapshot> {
  for (;;) {
    const snapshot = await executor.snapshot();
    if (wanted(snapshot)) return snapshot;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

function idsOf(runs: readonly number[]): number[] {
  const ids: number[] = [];
  for (let i = 0; i < runs.length; i += 2) for (let j = 0; j < runs[i + 1]!; j++) ids.push(runs[i]! + j);
  return ids;
}

describe('a snapshot', () => {
  it('of an idle engine has free blocks and nothing else', async () => {
    await using executor = await open();
    expect(await executor.snapshot()).toMatchObject({
      step: undefined,
      running: [],
      waiting: [],
      numWaiting: 0,
      iterations: [],
      blocks: new Uint8Array(256),
    });
  });

  it('shows how far sequences are, and blocks that they share', async () => {
    await using executor = await open({ maxBatchSize: 2 });
    const samplingParams = { maxTokens: 40, n: 2, temperature: 1 };
    const handle = executor.enqueue({ promptTokenIds: prompt, samplingParams });
    const waiting = executor.enqueue({ promptTokenIds: [7, 8], samplingParams: { maxTokens: 3 }, priority: 0.25 });
    const snapshot = await until(executor, ({ running }) => running.length === 2 && running[0]!.numGenerated > 4);
    expect(snapshot.waiting).toEqual([
      expect.objectContaining({
        requestId: waiting.requestId,
        status: 'waiting',
        promptLength: 2,
        priority: 0.25,
        blocks: [],
        firstScheduledTime: undefined,
      }),
    ]);
    expect(snapshot.numWaiting).toBe(1);
    const [first, second] = snapshot.running;
    expect([first!.index, second!.index]).toEqual([0, 1]);
    for (const sequence of snapshot.running) {
      expect(sequence).toMatchObject({ requestId: handle.requestId, promptLength: 6, maxTokens: 40, numInStep: 1 });
      expect(idsOf(sequence.blocks)).toHaveLength(Math.ceil(sequence.numCached / 4));
      expect(sequence.firstTokenTime).toBeGreaterThan(0);
    }
    expect(snapshot.step).toMatchObject({ numTokens: 2, entries: [{ count: 1, context: false }, { count: 1 }] });
    // The prompt's first block is held by both; each has blocks of its own behind it.
    const shared = idsOf(first!.blocks).filter((id) => idsOf(second!.blocks).includes(id));
    expect(shared).toHaveLength(1);
    expect(snapshot.blocks[shared[0]!]).toBe(blockStates.held + 1);
    expect(snapshot.blocks[idsOf(first!.blocks)[1]!]).toBe(blockStates.held);
    await Promise.all([handle.result(), waiting.result()]);
    const after = await executor.snapshot();
    expect(after.running).toEqual([]);
    expect([...new Set(after.blocks)].sort()).toEqual([blockStates.free, blockStates.cached]);
  });

  it('tells each step once to those who say what they know', async () => {
    await using executor = await open();
    await executor.enqueue({ promptTokenIds: prompt, samplingParams: { maxTokens: 5 } }).result();
    const { iterations } = await executor.snapshot();
    expect(iterations.map(({ iter }) => iter)).toEqual([0, 1, 2, 3, 4]);
    expect(iterations[0]).toMatchObject({ numContext: 1, numCtxTokens: 6, numGeneration: 0 });
    expect(iterations[4]).toMatchObject({ numContext: 0, numGeneration: 1, numDecoded: 1 });
    expect((await executor.snapshot(2)).iterations.map(({ iter }) => iter)).toEqual([3, 4]);
  });

  it('says nothing of what was asked', async () => {
    await using executor = await open({ vocabSize: 100_000 });
    const handle = executor.enqueue({ promptTokenIds: [77_123, 77_124], samplingParams: { maxTokens: 20 } });
    const snapshot = await until(executor, ({ running }) => running.length === 1);
    expect(JSON.stringify(snapshot)).not.toMatch(/7712[34]/);
    await handle.result();
  });
});

describe('a profile', () => {
  it('adds up launches by kind of step, for as many steps as were asked for', async () => {
    await using executor = await open();
    const profile = executor.profile(4);
    await executor.enqueue({ promptTokenIds: prompt, samplingParams: { maxTokens: 9 } }).result();
    const { context, generation } = await profile;
    expect(context).toMatchObject({ numSteps: 1, numTokens: 6, sample: Float64Array.of(4) });
    expect(generation).toMatchObject({ numSteps: 3, numTokens: 3, forward: Float64Array.of(3, 6, 9) });
    expect(generation.totalMs).toBeGreaterThan(0);
  });

  it('ends early when work runs out, and waits while there was none', async () => {
    await using executor = await open();
    const profile = executor.profile(100);
    await executor.snapshot();
    await executor.enqueue({ promptTokenIds: prompt, samplingParams: { maxTokens: 3 } }).result();
    const { context, generation } = await profile;
    expect(context.numSteps + generation.numSteps).toBe(3);
  });

  it('ends with the engine', async () => {
    const executor = await open();
    const profile = executor.profile(4);
    await Promise.all([expect(profile).rejects.toThrow('disposed'), executor[Symbol.asyncDispose]()]);
  });
});
