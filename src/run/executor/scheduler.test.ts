// The scheduler by itself: plans read as text, no session.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { SamplingParams } from '../decode/sampling-params.ts';
import { PriorityQueue } from '../kv/queue.ts';
import type { SessionLimits } from '../session/batch.ts';
import { Outbox } from './outbox.ts';
import type { StepPlan } from './plan.ts';
import type { WireUpdate } from './protocol.ts';
import { checkRequest } from './request.ts';
import { Scheduler, type SchedulerConfig } from './scheduler.ts';

const limits: SessionLimits = {
  maxBatchSize: 4,
  maxNumTokens: 8,
  maxNumLogits: 8,
  maxSeqLen: 64,
  tokensPerBlock: 4,
  maxBlocksPerSequence: 16,
  numBlocks: 16,
  vocabSize: 32,
};

class Simulation {
  readonly scheduler: Scheduler;
  readonly limits: SessionLimits;

  constructor(config: SchedulerConfig = {}, change: Partial<SessionLimits> = {}) {
    this.limits = { ...limits, ...change };
    // Prompts are all the same token: what is found in the cache is block-manager.test.ts's subject.
    this.scheduler = new Scheduler(this.limits, config, { enableBlockReuse: false });
  }

  add(requestId: number, promptLength: number, samplingParams: SamplingParams = {}, priority = 0.5): void {
    const { params, ...rest } = checkRequest(
      { promptTokenIds: new Array(promptLength).fill(1), samplingParams, priority },
      this.limits,
    );
    this.scheduler.add({ requestId, ...rest, params: { ...params, seed: 0n }, arrivalTime: 0 });
  }

  /** Plans a step, samples, finishes what is at its length; the plan as `request[start, end)` with `*` for each sample. */
  step(): string {
    const plan = this.scheduler.schedule();
    const text = describePlan(plan);
    for (const sequence of plan.entries.flatMap(({ samples }) => samples)) {
      this.scheduler.append(sequence, 1);
      if (sequence.numGenerated === sequence.request.data.params.maxTokens) this.scheduler.finish(sequence);
    }
    return text;
  }
}

function describePlan({ entries }: StepPlan): string {
  const part = ({ sequence, start, count, samples }: StepPlan['entries'][number]) =>
    `${sequence.request.data.requestId}.${sequence.index}[${start},${start + count})${'*'.repeat(samples.length)}`;
  return entries.map(part).join(' ');
}

/** Steps of 10 ms with a request of low priority at the beginning and more of high priority in each step than can be served: who was admitted, in order, with its arrival. */
function underLoad(
  low: { priority: number },
  high: readonly { priority: number; tokens: number }[],
  config: SchedulerConfig,
) {
  const roomy = { ...limits, maxBatchSize: 2, numBlocks: 32 };
  const scheduler = new Scheduler(roomy, config, { enableBlockReuse: false });
  const admitted: { requestId: number; arrival: number; priority: number }[] = [];
  let numAdded = 0;
  const add = (arrival: number, priority: number, maxTokens: number): void => {
    const { params, ...rest } = checkRequest(
      { promptTokenIds: [1, 2, 3], samplingParams: { maxTokens }, priority },
      roomy,
    );
    scheduler.add({ requestId: numAdded++, ...rest, params: { ...params, seed: 0n }, arrivalTime: arrival });
  };
  add(0, low.priority, 4);
  for (let step = 0; step < 1500; step++) {
    const now = step * 10;
    const { priority, tokens } = high[step % high.length]!;
    add(now, priority, tokens);
    const plan = scheduler.schedule(now);
    for (const { request } of plan.admitted) {
      const { requestId, arrivalTime } = request.data;
      admitted.push({ requestId, arrival: arrivalTime, priority: request.data.priority });
    }
    for (const sequence of plan.entries.flatMap(({ samples }) => samples)) {
      scheduler.append(sequence, 1);
      if (sequence.numGenerated === sequence.request.data.params.maxTokens) scheduler.finish(sequence);
    }
  }
  return { admitted, numAdded };
}

describe('priorities', () => {
  const between = (min: number, max: number) => fc.double({ min, max, noNaN: true });
  const loads = fc.record({
    low: fc.record({ priority: between(0, 0.4) }),
    high: fc.array(fc.record({ priority: between(0.5, 1), tokens: fc.integer({ min: 3, max: 8 }) }), {
      minLength: 1,
      maxLength: 20,
    }),
    priorityAgingMs: fc.integer({ min: 0, max: 3000 }),
  });

  it('nobody starves: a request is passed only by those that arrive within what their priority is worth', () => {
    fc.assert(
      fc.property(loads, ({ low, high, priorityAgingMs }) => {
        const { admitted, numAdded } = underLoad(low, high, { priorityAgingMs });
        // More came than could be served.
        expect(admitted.length).toBeLessThan(numAdded * 0.9);
        const at = admitted.findIndex(({ requestId }) => requestId === 0);
        expect(at).toBeGreaterThanOrEqual(0);
        for (const { arrival, priority } of admitted.slice(0, at))
          expect(arrival).toBeLessThanOrEqual((priority - low.priority) * priorityAgingMs);
      }),
      { numRuns: 60 },
    );
  });

  it('counts alone where aging is infinite: then a low one starves under such a load', () => {
    const scheduler = new Scheduler({ ...limits, maxBatchSize: 1 }, { priorityAgingMs: Infinity });
    const { params, ...rest } = checkRequest({ promptTokenIds: [1], samplingParams: { maxTokens: 2 } }, limits);
    const add = (requestId: number, priority: number): void => {
      const data = { requestId, ...rest, params: { ...params, seed: 0n }, arrivalTime: requestId };
      scheduler.add({ ...data, priority });
    };
    add(0, 0.1);
    for (let id = 1; id < 500; id++) {
      add(id, 0.9);
      for (const sequence of scheduler.schedule(id).entries.flatMap(({ samples }) => samples)) {
        expect(sequence.request.data.requestId).not.toBe(0);
        scheduler.append(sequence, 1);
        if (sequence.numGenerated === 2) scheduler.finish(sequence);
      }
    }
  });
});

describe('Scheduler', () => {
  it('cuts prompts to fit the step, generation first', () => {
    const simulation = new Simulation();
    simulation.add(1, 5, { maxTokens: 4 });
    simulation.add(2, 10, { maxTokens: 2 });
    expect([1, 2, 3, 4, 5].map(() => simulation.step())).toEqual([
      '1.0[0,5)* 2.0[0,3)',
      '1.0[5,6)* 2.0[3,10)*',
      '1.0[6,7)* 2.0[10,11)*',
      '1.0[7,8)*',
      '',
    ]);
  });

  it('never overtakes in rank order, and lets priority go first', () => {
    const simulation = new Simulation({}, { numBlocks: 8 });
    simulation.add(1, 4, { maxTokens: 13 });
    simulation.add(2, 20, { maxTokens: 9 }, 0.4);
    simulation.add(3, 1, { maxTokens: 1 }, 0.4);
    simulation.add(4, 1, { maxTokens: 1 }, 0.9);
    expect(simulation.step()).toBe('4.0[0,1)* 1.0[0,4)*');
    // Request 2 does not fit beside 1; 3 would, but came later.
    expect(simulation.step()).toBe('1.0[4,5)*');
  });

  it('keeps a static batch closed until it is through', () => {
    const simulation = new Simulation({ capacitySchedulerPolicy: 'static_batch' });
    simulation.add(1, 2, { maxTokens: 3 });
    expect(simulation.step()).toBe('1.0[0,2)*');
    simulation.add(2, 2, { maxTokens: 1 });
    expect([1, 2, 3].map(() => simulation.step())).toEqual(['1.0[2,3)*', '1.0[3,4)*', '2.0[0,2)*']);
  });

  it('preempts the lowest in rank under max_utilization, and computes it again', () => {
    const simulation = new Simulation({ capacitySchedulerPolicy: 'max_utilization' }, { numBlocks: 4 });
    simulation.add(1, 4, { maxTokens: 9 });
    simulation.add(2, 2, { maxTokens: 9 });
    const steps = Array.from({ length: 14 }, () => simulation.step());
    expect(simulation.scheduler.numPreemptions).toBe(1);
    expect(steps.filter((step) => /2\.0\[0,/.test(step))).toHaveLength(2);
    expect(simulation.scheduler.requests.size).toBe(0);
    expect(simulation.scheduler.blocks.freeNumBlocks).toBe(4);
  });

  it('begins the other sequences of a request where its prompt ends', () => {
    const simulation = new Simulation();
    simulation.add(1, 6, { n: 3, maxTokens: 3 });
    expect(simulation.step()).toBe('1.0[0,6)***');
    expect(simulation.scheduler.blocks.usedNumBlocks).toBe(2);
    expect(simulation.step()).toBe('1.0[6,7)* 1.1[6,7)* 1.2[6,7)*');
    // One shared full block, and the partial one three times.
    expect(simulation.scheduler.blocks.usedNumBlocks).toBe(4);
  });

  it('lets the others compute the prompt when the first is finished before', () => {
    const simulation = new Simulation();
    simulation.add(1, 12, { n: 2, maxTokens: 1 });
    simulation.step();
    simulation.scheduler.finish(simulation.scheduler.running[0]!);
    expect([1, 2].map(() => simulation.step())).toEqual(['1.1[0,8)', '1.1[8,12)*']);
    expect(simulation.scheduler.requests.size).toBe(0);
  });

  it('plans the same for the same events', () => {
    const run = () => {
      const simulation = new Simulation({ capacitySchedulerPolicy: 'max_utilization' }, { numBlocks: 9 });
      for (let i = 1; i < 12; i++)
        simulation.add(i, 1 + ((i * 7) % 13), { maxTokens: 1 + ((i * 5) % 16), n: 1 + (i % 2) });
      return Array.from({ length: 200 }, () => simulation.step());
    };
    expect(run()).toEqual(run());
  });
});

describe('PriorityQueue', () => {
  it('gives items in order and forgets unwanted ones', () => {
    const queue = new PriorityQueue<number>((a, b) => a - b);
    for (const item of [5, 3, 8, 1, 9, 2, 7]) queue.push(item);
    queue.keep((item) => item % 2 === 1);
    expect([queue.pop(), queue.pop(), queue.pop(), queue.pop(), queue.pop(), queue.pop()]).toEqual([
      1,
      3,
      5,
      7,
      9,
      undefined,
    ]);
  });
});

describe('Outbox', () => {
  it('gathers tokens by the interval; the first and the last go at once', () => {
    const sent: WireUpdate[] = [];
    const outbox = new Outbox((updates) => {
      sent.push(...updates);
      outbox.acknowledge();
    }, 3);
    const put = (requestId: number, token: number, finished = false) =>
      outbox.put([
        { response: { requestId, finished, outputs: [{ index: 0, tokenIds: [token], cumulativeLogprob: 0 }] } },
      ]);
    const told = (requestId: number) =>
      sent.flatMap((update) =>
        'response' in update && update.response.requestId === requestId ? [update.response.outputs[0]!.tokenIds] : [],
      );
    for (let token = 1; token <= 9; token++) put(1, token, token === 9);
    put(2, 1, true);
    put(3, 1);
    put(3, 2);
    outbox.put([{ requestId: 3, error: new Error('over') }]);
    expect(told(1)).toEqual([[1], [2, 3, 4], [5, 6, 7], [8, 9]]);
    expect(told(2)).toEqual([[1]]);
    expect(told(3)).toEqual([[1]]);
    expect(sent.at(-1)).toMatchObject({ requestId: 3, error: { message: 'over' } });
  });

  it('merges what the reader is not ready for', () => {
    const sent: (readonly WireUpdate[])[] = [];
    const outbox = new Outbox((updates) => sent.push(updates));
    const put = (token: number, finished = false) =>
      outbox.put([
        { response: { requestId: 1, finished, outputs: [{ index: 0, tokenIds: [token], cumulativeLogprob: -token }] } },
      ]);
    for (let token = 1; token <= 7; token++) put(token, token === 7);
    expect(sent).toHaveLength(4);
    outbox.acknowledge();
    expect(sent.at(-1)).toEqual([
      {
        response: { requestId: 1, finished: true, outputs: [{ index: 0, tokenIds: [5, 6, 7], cumulativeLogprob: -7 }] },
      },
    ]);
  });
});
