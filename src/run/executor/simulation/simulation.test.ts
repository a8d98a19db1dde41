// The simulator: deterministic, loses nothing, and shows what it is for.
import { describe, expect, it } from 'vitest';
import type { SessionLimits } from '../../session/batch.ts';
import { equalShare } from '../chunking.ts';
import { PrefixRouter } from './router.ts';
import { type SimulationOptions, simulate } from './simulate.ts';
import { timelineSvg, timelineText } from './timeline.ts';
import { type PoissonTraffic, poissonTraffic, type SimulatedRequest } from './traffic.ts';

const limits: SessionLimits = {
  maxBatchSize: 8,
  maxNumTokens: 256,
  maxNumLogits: 8,
  maxSeqLen: 256,
  tokensPerBlock: 16,
  maxBlocksPerSequence: 16,
  numBlocks: 64,
  vocabSize: 1000,
};
const traffic: PoissonTraffic = {
  numRequests: 600,
  requestsPerSecond: 60,
  numPrefixes: 24,
  prefixLength: 96,
  meanSuffixLength: 20,
  meanOutputLength: 10,
  maxLength: 256,
  vocabSize: 1000,
};
const kvCacheConfig = { eventBufferMaxSize: 1024 };

function run(options: Partial<SimulationOptions> = {}, change: Partial<PoissonTraffic> = {}) {
  return simulate({ limits, traffic: poissonTraffic({ ...traffic, ...change }), kvCacheConfig, ...options });
}

describe('simulate', () => {
  it('ends every request, and does the same again', () => {
    const first = run({ numReplicas: 3 });
    expect(first.numRequests).toBe(600);
    expect(first.timeToFirstToken.p50).toBeGreaterThan(0);
    expect(first.latency.p99).toBeGreaterThanOrEqual(first.latency.p50);
    expect(run({ numReplicas: 3 })).toEqual(first);
  });

  it('finds more of the prompts where requests go to who has them', () => {
    const roundRobin = run({ numReplicas: 4 });
    const aware = run({ numReplicas: 4, router: new PrefixRouter(16) });
    expect(aware.hitRate).toBeGreaterThan(roundRobin.hitRate * 1.2);
  });

  it('takes recorded traffic, and draws what gives way', () => {
    const request = (arrival: number, length: number, numOutputTokens: number): SimulatedRequest => ({
      arrival,
      promptTokenIds: Int32Array.from({ length }, (_, i) => (arrival * 31 + i) % 1000),
      numOutputTokens,
    });
    const { steps, numPreemptions } = simulate({
      limits: { ...limits, numBlocks: 8 },
      schedulerConfig: { capacitySchedulerPolicy: 'max_utilization' },
      traffic: [request(0, 40, 60), request(1, 40, 60), request(2, 12, 3)],
      record: true,
    });
    expect(numPreemptions).toBeGreaterThan(0);
    const lines = timelineText(steps).trimEnd().split('\n');
    expect(lines).toHaveLength(3);
    expect(lines[0]).toMatch(/^1 Cg/);
    expect(lines.join('')).toContain('p');
    const svg = timelineSvg(steps);
    expect(svg.match(/<rect/g)!.length).toBeGreaterThan(60);
    expect(svg.trimEnd().endsWith('</svg>')).toBe(true);
  });

  it('holds no more memory after a day than after an hour', () => {
    const day = 24 * 3600;
    let numFinished = 0;
    const { scheduler } = holding(day, (count) => {
      numFinished = count;
    });
    expect(numFinished).toBe(6 * 24 * 60);
    expect(scheduler.duration).toBeGreaterThan(0.9 * day * 1000);
    expect(scheduler.most).toBeLessThanOrEqual(2 * scheduler.early);
  });
});

/** A day of traffic, and how many blocks the router knew of after an hour and at most. */
function holding(seconds: number, progress: (count: number) => void) {
  const router = new PrefixRouter(16);
  const numRequests = 6 * 24 * 60;
  let early = 0;
  let most = 0;
  const { duration } = run(
    {
      router,
      progress: (count) => {
        if (count === numRequests / 24) early = router.size;
        most = Math.max(most, router.size);
        progress(count);
      },
    },
    { numRequests, requestsPerSecond: numRequests / seconds },
  );
  return { scheduler: { duration, early, most } };
}

describe('equalShare', () => {
  it('gives all the same, and what some do not need to the others', () => {
    expect(equalShare(100, [1000, 1000], 1)).toBe(50);
    expect(equalShare(100, [10, 1000, 1000], 1)).toBe(45);
    expect(equalShare(100, [10, 20], 1)).toBe(70);
    expect(equalShare(100, [1000, 1000, 1000], 16)).toBe(32);
    expect(equalShare(8, [1000, 1000], 16)).toBe(16);
  });
});
