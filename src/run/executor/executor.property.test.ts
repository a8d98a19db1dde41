// The executor as a whole, on a session whose tokens tell whether the cache was used rightly: whatever the pool, policy, chunking and company, a request's tokens are those it
// has alone.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FakeSession, type FakeSessionOptions } from '../../../test/support/fake-session.ts';
import type { NGramDecodingConfig } from '../decode/ngram.ts';
import type { SamplingParams } from '../decode/sampling-params.ts';
import type { BlockId } from '../kv/block-table.ts';
import type { CacheGroup, SessionLimits } from '../session/batch.ts';
import type { CapacitySchedulerPolicy } from './capacity.ts';
import { Engine } from './engine.ts';
import { checkRequest, type RequestData } from './request.ts';
import type { CacheConfig, SchedulerConfig } from './scheduler.ts';

interface Job {
  readonly prompt: readonly number[];
  readonly params: SamplingParams;
  readonly arrival: number;
  /** Step at which it is cancelled. */
  readonly cancel: number | undefined;
  readonly priority: number;
  readonly salt?: string;
}

function requestData(requestId: number, job: Job, limits: SessionLimits): RequestData {
  const { params, ...rest } = checkRequest(
    {
      promptTokenIds: job.prompt,
      samplingParams: job.params,
      priority: job.priority,
      ...(job.salt === undefined ? {} : { cacheSalt: job.salt }),
    },
    limits,
  );
  return { requestId, ...rest, params: { ...params, seed: params.seed ?? 0n }, arrivalTime: 0 };
}

/** What happened over all runs: requests that came or were cancelled, parts of steps, places of the cache that were written (each is checked). */
let numEvents = 0;

/** Runs jobs to the end; each one's tokens by sequence, and how it ended. */
async function runJobs(
  jobs: readonly Job[],
  limits: FakeSessionOptions,
  schedulerConfig: SchedulerConfig,
  kvCacheConfig: CacheConfig = {},
  speculativeConfig?: NGramDecodingConfig,
) {
  // Nobody may write what another holds, or what is known by content.
  const onWrite = (block: number, offset: number): void => {
    numEvents++;
    const { blocks } = engine.scheduler;
    if (blocks.references(block as BlockId) !== 1) {
      // Only those who begin with the prompt that is being computed hold its last block already.
      const holders = engine.scheduler.running.filter(({ table }) =>
        table.ids.subarray(0, table.numBlocks * table.numGroups).includes(block),
      );
      const beginning = holders.every(
        ({ request, numGenerated }) => request === holders[0]!.request && numGenerated === 0,
      );
      if (!beginning) throw new Error(`block ${block} is written while shared`);
    }
    if (offset < blocks.numKnown(block as BlockId)) throw new Error(`block ${block} is written though it is known`);
  };
  const session = new FakeSession({ ...limits, onWrite });
  const outputs = jobs.map((job) =>
    Array.from({ length: numOutputs(job) }, () => ({ tokens: [] as number[], reason: '' })),
  );
  const finished = new Set<number>();
  const engine: Engine = new Engine(
    session,
    { schedulerConfig, kvCacheConfig, ...(speculativeConfig === undefined ? {} : { speculativeConfig }) },
    (updates) => {
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
    },
  );
  const lastEvent = Math.max(...jobs.map(({ arrival, cancel }) => Math.max(arrival, cancel ?? 0)));
  let busy = true;
  for (let step = 0; busy || step <= lastEvent; step++) {
    jobs.forEach((job, id) => {
      if (job.arrival === step || job.cancel === step) numEvents++;
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
  return {
    outputs,
    finished,
    session,
    numPreemptions: engine.scheduler.numPreemptions,
    stats: blocks.stats(),
    spec: engine.statistics().specDecodingStats,
  };
}

function numOutputs({ params }: Job): number {
  return params.useBeamSearch ? (params.n ?? 1) : (params.bestOf ?? params.n ?? 1);
}

/** What a job gives alone, in a roomy pool: each sequence as a request of its own with the derived seed. */
async function alone(job: Job, limits: Partial<SessionLimits>): Promise<{ tokens: number[]; reason: string }[]> {
  const { cacheGroups } = limits;
  const roomy = {
    maxNumTokens: 64,
    numBlocks: 512,
    overlaps: false,
    ...(cacheGroups === undefined ? {} : { cacheGroups }),
  };
  if (job.params.useBeamSearch) {
    const { outputs } = await runJobs([{ ...job, arrival: 0, cancel: undefined }], roomy, {});
    return outputs[0]!;
  }
  const sequences = [];
  for (let index = 0; index < (job.params.bestOf ?? job.params.n ?? 1); index++) {
    const { n: _, bestOf: __, ...params } = job.params;
    const single = {
      ...job,
      arrival: 0,
      cancel: undefined,
      params: { ...params, seed: BigInt(params.seed ?? 0) + BigInt(index) },
    };
    const { outputs } = await runJobs([single], roomy, {});
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

async function expectAlone(
  all: readonly Job[],
  limits: Partial<SessionLimits>,
  config: SchedulerConfig,
  cache: CacheConfig = {},
) {
  const run = await runJobs(all, limits, config, cache);
  for (const [id, job] of all.entries()) {
    const expected = await alone(job, limits);
    expect(run.finished.has(id)).toBe(true);
    run.outputs[id]!.forEach(({ tokens, reason }, index) => {
      // A search that is cancelled gives the best it has, which need not be the best of all.
      if (job.cancel !== undefined && job.params.useBeamSearch) return;
      if (reason === 'cancelled') expect(tokens).toEqual(expected[index]!.tokens.slice(0, tokens.length));
      else expect({ tokens, reason }).toEqual(expected[index]);
    });
    if (job.cancel === undefined) expect(run.outputs[id]!.every(({ reason }) => reason !== 'cancelled')).toBe(true);
  }
  return run;
}

const policies: CapacitySchedulerPolicy[] = ['max_utilization', 'guaranteed_no_evict', 'static_batch'];
const groupings: readonly (readonly CacheGroup[])[] = [
  [{}],
  [{ window: 7 }],
  [{}, { window: 9 }],
  [{ window: 5 }, { window: 16, sinkTokens: 3 }],
  [{}, { window: 6, sinkTokens: 5 }, { window: 6, sinkTokens: 5 }],
];
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

  it('search with beams beside those who sample', async () => {
    let copies = 0;
    await fc.assert(
      fc.asyncProperty(
        jobs(40, 16, 14, 2),
        fc.array(
          fc.record({
            n: fc.integer({ min: 1, max: 4 }),
            lengthPenalty: fc.constantFrom(0, 1),
            earlyStopping: fc.nat(2),
          }),
          { minLength: 20, maxLength: 20 },
        ),
        fc.constantFrom(...policies),
        fc.constantFrom(512, 24, 20),
        fc.boolean(),
        async (base, searches, capacitySchedulerPolicy, numBlocks, enableBlockReuse) => {
          const all = base.map((job, i): Job => {
            const search = searches[i];
            if (search === undefined) return job;
            const { maxTokens, endId, stopWords, minTokens } = job.params;
            const params = {
              ...search,
              maxTokens,
              minTokens,
              endId,
              stopWords,
              bestOf: Math.max(search.n, 2),
              useBeamSearch: true,
            };
            return { ...job, params: params as SamplingParams };
          });
          const run = await expectAlone(all, { numBlocks }, { capacitySchedulerPolicy }, { enableBlockReuse });
          copies += run.session.numCopies;
          if (capacitySchedulerPolicy !== 'max_utilization') expect(run.numPreemptions).toBe(0);
        },
      ),
      { numRuns: 40, seed: 6 },
    );
    expect(copies).toBeGreaterThan(100);
  });

  it('search on where they had to give way', async () => {
    const all = Array.from(
      { length: 6 },
      (_, i): Job => ({
        prompt: [i, 1, 2, 3, i, i].slice(0, 3 + (i % 4)),
        params: { useBeamSearch: true, n: 2, bestOf: 3, maxTokens: 40 - i },
        arrival: i,
        cancel: undefined,
        priority: 0.5,
      }),
    );
    const run = await expectAlone(
      all,
      { numBlocks: 34, maxBatchSize: 24 },
      { capacitySchedulerPolicy: 'max_utilization' },
    );
    expect(run.numPreemptions).toBeGreaterThan(2);
  });

  it('propose tokens, and take those that would have come anyway', async () => {
    let drafts = 0;
    let accepted = 0;
    await fc.assert(
      fc.asyncProperty(
        jobs(32, 24, 24, 2),
        fc.constantFrom(...policies),
        fc.constantFrom(512, 24, 13),
        fc.constantFrom(8, 17, 32),
        fc.constantFrom(1, 2, 3, undefined),
        fc.record({
          decodingType: fc.constant('ngram' as const),
          maxDraftLen: fc.integer({ min: 1, max: 9 }),
          maxMatchingNgramSize: fc.integer({ min: 2, max: 5 }),
        }),
        fc.boolean(),
        async (base, capacitySchedulerPolicy, numBlocks, maxNumLogits, memory, speculative, enableBlockReuse) => {
          const all = base.map((job): Job => ({ ...job, prompt: [...job.prompt, ...job.prompt].slice(0, 24) }));
          const session = { numBlocks, maxNumLogits, vocabSize: 10, ...(memory === undefined ? {} : { memory }) };
          const known = all.map(({ params, ...job }): Job => {
            const { endId: _, stopWords: __, ...rest } = params;
            return { ...job, prompt: job.prompt.map((token) => token % 10), params: rest };
          });
          const config = { capacitySchedulerPolicy };
          const with_ = await runJobs(known, session, config, { enableBlockReuse }, speculative);
          const without = await runJobs(known, { ...session, numBlocks: 512 }, {}, { enableBlockReuse: false });
          with_.outputs.forEach((sequences, id) => {
            sequences.forEach(({ tokens, reason }, index) => {
              const expected = without.outputs[id]![index]!.tokens;
              if (known[id]!.cancel === undefined) expect({ tokens, reason }).toEqual(without.outputs[id]![index]);
              else expect(tokens.slice(0, expected.length)).toEqual(expected.slice(0, tokens.length));
            });
          });
          drafts += with_.spec.numDraftTokens;
          accepted += with_.spec.numAcceptedTokens;
          expect(with_.spec.numAcceptedTokens).toBeLessThanOrEqual(with_.spec.numDraftTokens);
        },
      ),
      { numRuns: 40, seed: 8 },
    );
    expect(drafts).toBeGreaterThan(1000);
    expect(accepted).toBeGreaterThan(500);
    expect(accepted).toBeLessThan(drafts);
  });

  it('find what others left in the cache, and give the same', async () => {
    let reused = 0;
    let preemptions = 0;
    await fc.assert(
      fc.asyncProperty(
        jobs(48, 12, 16, 3),
        fc.array(fc.array(fc.nat(3), { minLength: 4, maxLength: 16 }), { minLength: 3, maxLength: 3 }),
        fc.array(fc.record({ prefix: fc.nat(3), salted: fc.boolean() }), { minLength: 48, maxLength: 48 }),
        fc.constantFrom(...policies),
        fc.constantFrom(512, 40, 20, 13),
        fc.record({ enableBlockReuse: fc.constantFrom(true, true, false), enablePartialReuse: fc.boolean() }),
        fc.constantFrom(undefined, 3, 5),
        async (base, prefixes, choices, capacitySchedulerPolicy, numBlocks, cache, contextChunkSize) => {
          const all = base.map((job, i): Job => {
            const { prefix, salted } = choices[i]!;
            const prompt = [...(prefixes[prefix] ?? []), ...job.prompt].slice(0, 34);
            return { ...job, prompt, ...(salted ? { salt: 'pepper' } : {}) };
          });
          const chunk = contextChunkSize === undefined ? {} : { contextChunkSize };
          const run = await expectAlone(all, { numBlocks }, { capacitySchedulerPolicy, ...chunk }, cache);
          reused += run.stats.reusedBlocks;
          preemptions += run.numPreemptions;
          if (!cache.enableBlockReuse) expect(run.stats.reusedBlocks).toBe(0);
        },
      ),
      { numRuns: 40, seed: 3 },
    );
    expect(reused).toBeGreaterThan(1000);
    expect(preemptions).toBeGreaterThan(10);
  });

  it('give the same whatever layers see, and wherever their blocks have been', async () => {
    let moves = 0;
    let preemptions = 0;
    let events = 0;
    await fc.assert(
      fc.asyncProperty(
        jobs(48, 20, 20, 3),
        fc.array(fc.array(fc.nat(3), { minLength: 4, maxLength: 16 }), { minLength: 3, maxLength: 3 }),
        fc.array(fc.nat(3), { minLength: 48, maxLength: 48 }),
        fc.constantFrom(...groupings),
        fc.constantFrom(...policies),
        // Blocks for each group: a roomy pool, and the smallest that holds every request alone.
        fc.constantFrom(200, 30, 18),
        fc.constantFrom(0, 20, 200),
        fc.record({ enableBlockReuse: fc.constantFrom(true, true, false), enablePartialReuse: fc.boolean() }),
        fc.record({
          contextChunkSize: fc.constantFrom(3, 8, 32),
          contextChunkingPolicy: fc.constantFrom('first_come_first_served' as const, 'equal_progress' as const),
        }),
        async (base, prefixes, choices, cacheGroups, capacitySchedulerPolicy, each, numHostBlocks, cache, chunking) => {
          const all = base.map((job, i): Job => {
            const prompt = [...(prefixes[choices[i]!] ?? []), ...job.prompt].slice(0, 34);
            return { ...job, prompt };
          });
          const limits = { numBlocks: each * cacheGroups.length, cacheGroups, numHostBlocks, maxNumTokens: 32 };
          const run = await expectAlone(all, limits, { capacitySchedulerPolicy, ...chunking }, cache);
          moves += run.session.numMoves;
          preemptions += run.numPreemptions;
          events += run.session.most.tokens + run.session.numSteps * run.session.most.requests;
          if (capacitySchedulerPolicy !== 'max_utilization') expect(run.numPreemptions).toBe(0);
        },
      ),
      { numRuns: 50, seed: 12 },
    );
    expect(moves).toBeGreaterThan(500);
    expect(preemptions).toBeGreaterThan(3);
    expect(events).toBeGreaterThan(10_000);
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

  it('did so over more than 100,000 random events', () => {
    expect(numEvents).toBeGreaterThan(100_000);
  });
});
