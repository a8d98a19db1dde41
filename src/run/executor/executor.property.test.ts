// The executor as a whole, on a session whose tokens tell whether the cache was used rightly: whatever the pool, policy, chunking and company, a request's tokens are those it
// has alone.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FakeSession } from '../../../test/support/fake-session.ts';
import type { SamplingParams } from '../decode/sampling-params.ts';
import type { SessionLimits } from '../session/batch.ts';
import { Engine } from './engine.ts';
import { checkRequest, type RequestData } from './request.ts';
import type { CapacitySchedulerPolicy, SchedulerConfig } from './scheduler.ts';

interface Job {
  readonly prompt: readonly number[];
  readonly params: SamplingParams;
  readonly arrival: number;
  /** Step at which it is cancelled. */
  readonly cancel: number | undefined;
  readonly priority: number;
}

function requestData(requestId: number, job: Job, limits: SessionLimits): RequestData {
  const { params, ...rest } = checkRequest(
    { promptTokenIds: job.prompt, samplingParams: job.params, priority: job.priority },
    limits,
  );
  return { requestId, ...rest, params: { ...params, seed: params.seed ?? 0n }, arrivalTime: 0 };
}

/** Runs jobs to the end; each one's tokens by sequence, and how it ended. */
async function runJobs(jobs: readonly Job[], limits: Partial<SessionLimits>, schedulerConfig: SchedulerConfig) {
  const session = new FakeSession(limits);
  const outputs = jobs.map((job) =>
    Array.from({ length: job.params.bestOf ?? job.params.n ?? 1 }, () => ({ tokens: [] as number[], reason: '' })),
  );
  const finished = new Set<number>();
  const engine = new Engine(session, { schedulerConfig }, (updates) => {
    for (const update of updates) {
      if ('error' in update) throw update.error;
      expect(finished.has(update.response.requestId)).toBe(false);
      for (const delta of update.response.outputs) {
        const output = outputs[update.response.requestId]![delta.index]!;
        expect(output.reason).toBe('');
        output.tokens.push(...delta.tokenIds);
        output.reason = delta.finishReason ?? '';
      }
      if (update.response.finished) finished.add(update.response.requestId);
    }
  });
  const lastEvent = Math.max(...jobs.map(({ arrival, cancel }) => Math.max(arrival, cancel ?? 0)));
  let busy = true;
  for (let step = 0; busy || step <= lastEvent; step++) {
    jobs.forEach((job, id) => {
      if (job.arrival === step) engine.post({ type: 'enqueue', request: requestData(id, job, session.limits) });
      if (job.cancel === step) engine.post({ type: 'cancel', requestId: id });
    });
    busy = await engine.step();
    expect(step).toBeLessThan(20_000);
  }
  const { blocks } = engine.scheduler;
  expect(blocks.freeNumBlocks).toBe(blocks.maxNumBlocks);
  expect(engine.scheduler.requests.size).toBe(0);
  expect(engine.scheduler.numWaiting).toBe(0);
  return { outputs, finished, session, numPreemptions: engine.scheduler.numPreemptions };
}

/** What a job gives alone, in a roomy pool: each sequence as a request of its own with the derived seed. */
async function alone(job: Job): Promise<{ tokens: number[]; reason: string }[]> {
  const sequences = [];
  for (let index = 0; index < (job.params.bestOf ?? job.params.n ?? 1); index++) {
    const { n: _, bestOf: __, ...params } = job.params;
    const single = {
      ...job,
      arrival: 0,
      cancel: undefined,
      params: { ...params, seed: BigInt(params.seed ?? 0) + BigInt(index) },
    };
    const { outputs } = await runJobs([single], { maxNumTokens: 64 }, {});
    sequences.push(outputs[0]![0]!);
  }
  return sequences;
}

const sampling: fc.Arbitrary<SamplingParams> = fc.oneof(
  { weight: 3, arbitrary: fc.constant({}) },
  fc.record({ temperature: fc.constantFrom(0.7, 1, 1.5), topK: fc.constantFrom(0, 4), topP: fc.constantFrom(1, 0.8) }),
  fc.record({ repetitionPenalty: fc.constant(1.3), noRepeatNgramSize: fc.constant(2), minTokens: fc.constant(3) }),
);

function jobs(count: number, maxPrompt: number, maxTokens: number, maxN: number): fc.Arbitrary<Job[]> {
  const job = fc
    .record({
      prompt: fc.array(fc.integer({ min: 0, max: 31 }), { minLength: 1, maxLength: maxPrompt }),
      maxTokens: fc.integer({ min: 1, max: maxTokens }),
      n: fc.integer({ min: 1, max: maxN }),
      seed: fc.nat(),
      base: sampling,
      arrival: fc.nat(40),
      life: fc.nat(30),
      cancelled: fc.integer({ min: 0, max: 2 }),
      priority: fc.constantFrom(0.5, 0.5, 0.9),
    })
    .map(
      ({ prompt, base, maxTokens: tokens, n, seed, arrival, life, cancelled, priority }): Job => ({
        prompt,
        params: {
          ...base,
          maxTokens: tokens,
          minTokens: Math.min(base.minTokens ?? 0, tokens),
          n,
          seed,
          endId: 7,
          stopWords: [[3, 4], [9]],
        },
        arrival,
        cancel: cancelled === 0 ? arrival + life : undefined,
        priority,
      }),
    );
  return fc.array(job, { minLength: count, maxLength: count });
}

async function expectAlone(all: readonly Job[], limits: Partial<SessionLimits>, config: SchedulerConfig) {
  const run = await runJobs(all, limits, config);
  for (const [id, job] of all.entries()) {
    const expected = await alone(job);
    expect(run.finished.has(id)).toBe(true);
    run.outputs[id]!.forEach(({ tokens, reason }, index) => {
      if (reason === 'cancelled') expect(tokens).toEqual(expected[index]!.tokens.slice(0, tokens.length));
      else expect({ tokens, reason }).toEqual(expected[index]);
    });
    if (job.cancel === undefined) expect(run.outputs[id]!.every(({ reason }) => reason !== 'cancelled')).toBe(true);
  }
  return run;
}

const policies: CapacitySchedulerPolicy[] = ['max_utilization', 'guaranteed_no_evict', 'static_batch'];
const ample = { numBlocks: 512 };
const tiny = { numBlocks: 13 };

describe('64 requests that come and go', () => {
  for (const capacitySchedulerPolicy of policies) {
    for (const [name, pool] of [
      ['an ample pool', ample],
      ['a tiny pool', tiny],
    ] as const) {
      it(`give what they give alone: ${capacitySchedulerPolicy}, ${name}`, async () => {
        let preemptions = 0;
        await fc.assert(
          fc.asyncProperty(
            jobs(64, 24, 24, 1),
            fc.constantFrom(8, 17, 32),
            fc.constantFrom(undefined, 3, 8),
            async (all, maxNumTokens, contextChunkSize) => {
              const config = {
                capacitySchedulerPolicy,
                ...(contextChunkSize === undefined ? {} : { contextChunkSize }),
              };
              const run = await expectAlone(all, { ...pool, maxNumTokens }, config);
              preemptions += run.numPreemptions;
            },
          ),
          { numRuns: 4, seed: 11 },
        );
        if (capacitySchedulerPolicy === 'max_utilization' && pool === tiny) expect(preemptions).toBeGreaterThan(0);
        if (capacitySchedulerPolicy !== 'max_utilization') expect(preemptions).toBe(0);
      });
    }
  }

  it('share their prompts when n > 1, and copy the shared block before they write', async () => {
    let copies = 0;
    let preemptions = 0;
    await fc.assert(
      fc.asyncProperty(
        jobs(16, 24, 16, 4),
        fc.constantFrom(...policies),
        fc.constantFrom(512, 24, 12, 10),
        fc.constantFrom(4, 8, 32),
        async (all, capacitySchedulerPolicy, numBlocks, maxNumLogits) => {
          const run = await expectAlone(all, { numBlocks, maxNumLogits }, { capacitySchedulerPolicy });
          copies += run.session.numCopies;
          if (capacitySchedulerPolicy === 'max_utilization') preemptions += run.numPreemptions;
          else expect(run.numPreemptions).toBe(0);
        },
      ),
      { numRuns: 40, seed: 5 },
    );
    expect(copies).toBeGreaterThan(100);
    expect(preemptions).toBeGreaterThan(10);
  });

  it('fill every step as far as the limits allow', async () => {
    const all = Array.from({ length: 32 }, (_, i) => ({
      prompt: Array.from({ length: 20 }, (_, j) => (i + j) % 32),
      params: { maxTokens: 12 },
      arrival: 0,
      cancel: undefined,
      priority: 0.5,
    }));
    const { session } = await runJobs(all, { numBlocks: 512, maxBatchSize: 8, maxNumTokens: 32 }, {});
    expect(session.most).toEqual({ tokens: 32, requests: 8, logits: 8 });
  });
});
