// Drives replicas of the scheduler with traffic in simulated time: what requests would wait, where prefixes would be found, how the steps would be made up.
import { UsageError } from '../../../base/errors.ts';
import { PriorityQueue } from '../../kv/queue.ts';
import { Replica, type ReplicaOptions, type SimulatedResult, type SimulatedStep, type StepTime } from './replica.ts';
import { RoundRobinRouter, type Router } from './router.ts';
import type { SimulatedRequest } from './traffic.ts';

/** What is simulated. */
export interface SimulationOptions extends Omit<ReplicaOptions, 'stepTime'> {
  /** Engines; default 1. */
  readonly numReplicas?: number;
  /** Requests in the order of their arrival, recorded or from `poissonTraffic`. */
  readonly traffic: Iterable<SimulatedRequest>;
  /** Default: round robin. */
  readonly router?: Router;
  /** Default: `defaultStepTime`. */
  readonly stepTime?: StepTime;
  /** Keeps every step, for a timeline; default false. */
  readonly record?: boolean;
  /** Told now and then how many requests have ended. */
  readonly progress?: (numFinished: number) => void;
}

/** Milliseconds at a share of requests. */
export interface Percentiles {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly mean: number;
}

/** What a simulation found. */
export interface SimulationResult {
  readonly numRequests: number;
  readonly numSteps: number;
  /** Simulated milliseconds from the first arrival to the last token. */
  readonly duration: number;
  /** Prompt tokens that were found in a cache, of all. */
  readonly hitRate: number;
  /** From arrival to the first token, to the last, and between tokens. */
  readonly timeToFirstToken: Percentiles;
  readonly latency: Percentiles;
  readonly timePerOutputToken: Percentiles;
  readonly tokensPerSecond: number;
  readonly numPreemptions: number;
  readonly steps: readonly SimulatedStep[];
}

/** A GPU of the kind that serves an 8B model: 8 ms to read the weights, and 0.04 ms a token of a prompt. */
export const defaultStepTime: StepTime = ({ entries }) => {
  let time = 8;
  for (let i = 0; i < entries.length; i++) time += entries[i]!.context ? 0.04 * entries[i]!.count : 0.02;
  return time;
};

/** Runs the traffic to its end. Throws UsageError for less than one replica. */
export function simulate(options: SimulationOptions): SimulationResult {
  const { numReplicas = 1, router = new RoundRobinRouter(), stepTime = defaultStepTime, traffic, record } = options;
  if (!(Number.isInteger(numReplicas) && numReplicas >= 1))
    throw new UsageError('nothing to simulate', {
      where: 'numReplicas',
      expected: 'an integer ≥ 1',
      got: String(numReplicas),
    });
  const replicas = Array.from({ length: numReplicas }, (_, i) => new Replica(i, { ...options, stepTime }));
  const busy = new PriorityQueue<{ readonly at: number; readonly replica: Replica }>(
    (a, b) => a.at - b.at || a.replica.index - b.replica.index,
  );
  const figures = new Figures();
  const steps: SimulatedStep[] = [];
  const finished: SimulatedResult[] = [];
  const begin = (replica: Replica, now: number): void => {
    if (replica.begin(now)) busy.push({ at: replica.busyUntil!, replica });
    router.observe(replica.index, replica.takeEvents());
  };
  const advance = (until: number): void => {
    for (let top = busy.peek(); top !== undefined && top.at <= until; top = busy.peek()) {
      busy.pop();
      top.replica.end(finished, record ? steps : undefined);
      for (const result of finished.splice(0)) figures.add(result);
      begin(top.replica, top.at);
      options.progress?.(figures.count);
    }
  };
  let requestId = 0;
  for (const request of traffic) {
    advance(request.arrival);
    const loads = replicas.map(({ load }) => load);
    const replica = replicas[router.route(request.promptTokenIds, loads)]!;
    replica.add(++requestId, request);
    if (replica.idle) begin(replica, request.arrival);
  }
  advance(Number.POSITIVE_INFINITY);
  const numSteps = replicas.reduce((sum, replica) => sum + replica.numSteps, 0);
  const numPreemptions = replicas.reduce((sum, { scheduler }) => sum + scheduler.numPreemptions, 0);
  return { ...figures.read(), numSteps, numPreemptions, steps };
}

/** What is kept of results: sums, and the times themselves as plain numbers. */
class Figures {
  count = 0;
  #prompt = 0;
  #cached = 0;
  #output = 0;
  #first = Number.POSITIVE_INFINITY;
  #last = 0;
  readonly #ttft: number[] = [];
  readonly #latency: number[] = [];
  readonly #tpot: number[] = [];

  add({ arrival, firstToken, end, numPromptTokens, numCachedTokens, numOutputTokens }: SimulatedResult): void {
    this.count++;
    this.#prompt += numPromptTokens;
    this.#cached += numCachedTokens;
    this.#output += numOutputTokens;
    this.#first = Math.min(this.#first, arrival);
    this.#last = Math.max(this.#last, end);
    this.#ttft.push(firstToken - arrival);
    this.#latency.push(end - arrival);
    if (numOutputTokens > 1) this.#tpot.push((end - firstToken) / (numOutputTokens - 1));
  }

  read(): Omit<SimulationResult, 'numSteps' | 'numPreemptions' | 'steps'> {
    const duration = this.count === 0 ? 0 : this.#last - this.#first;
    return {
      numRequests: this.count,
      duration,
      hitRate: this.#prompt === 0 ? 0 : this.#cached / this.#prompt,
      timeToFirstToken: percentiles(this.#ttft),
      latency: percentiles(this.#latency),
      timePerOutputToken: percentiles(this.#tpot),
      tokensPerSecond: duration === 0 ? 0 : (this.#output * 1000) / duration,
    };
  }
}

function percentiles(values: readonly number[]): Percentiles {
  const sorted = Float64Array.from(values).sort();
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
  const mean = sorted.length === 0 ? 0 : sorted.reduce((sum, value) => sum + value, 0) / sorted.length;
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), mean };
}
