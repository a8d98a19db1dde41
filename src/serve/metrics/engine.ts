// The numbers of an engine: its KV cache, its batch and its steps, taken from the executor's statistics. Each step is counted once, however often the statistics are read.
import { Counter, Gauge, Histogram, type Registry as Numbers } from '@platformatic/prom-client';
import type { ExecutorStatistics, IterationStats } from '../../run/executor/statistics.ts';

/** What a gauge shows of the newest state. */
type Reading = (statistics: ExecutorStatistics, last: IterationStats | undefined) => number | undefined;

const gauges: Readonly<Record<string, readonly [help: string, reading: Reading]>> = {
  trtllm_kv_cache_utilization: [
    'Share of the KV blocks in use.',
    ({ kvCacheStats: kv }) => kv.usedNumBlocks / kv.maxNumBlocks,
  ],
  trtllm_kv_cache_hit_rate: [
    'Share of prompt blocks found in the cache.',
    ({ kvCacheStats }) => kvCacheStats.cacheHitRate,
  ],
  trtllm_kv_cache_max_blocks: ['KV blocks there are.', ({ kvCacheStats }) => kvCacheStats.maxNumBlocks],
  trtllm_kv_cache_free_blocks: ['KV blocks that are free.', ({ kvCacheStats }) => kvCacheStats.freeNumBlocks],
  trtllm_kv_cache_used_blocks: ['KV blocks in use.', ({ kvCacheStats }) => kvCacheStats.usedNumBlocks],
  trtllm_kv_cache_tokens_per_block: ['Tokens in a KV block.', ({ kvCacheStats }) => kvCacheStats.tokensPerBlock],
  trtllm_num_requests_running: ['Sequences in the batch.', ({ numActiveRequests }) => numActiveRequests],
  trtllm_num_requests_waiting: ['Sequences that wait for a place.', ({ numQueuedRequests }) => numQueuedRequests],
  trtllm_cpu_memory_usage_bytes: ['Resident memory of the process.', ({ cpuMemUsage }) => cpuMemUsage],
  trtllm_max_num_active_requests: ['Most sequences in the batch so far.', (_, last) => last?.maxNumActiveRequests],
  trtllm_max_batch_size_static: ['Sequences a step was built for.', (_, last) => last?.maxBatchSizeStatic],
  trtllm_max_batch_size_runtime: ['Sequences a step may have.', (_, last) => last?.maxBatchSizeRuntime],
  trtllm_max_num_tokens_runtime: ['Tokens a step may have.', (_, last) => last?.maxNumTokensRuntime],
  trtllm_iteration_latency_seconds: ['Time of the newest step.', (_, last) => last && last.iterLatencyMS / 1000],
  trtllm_num_context_requests: [
    'Sequences in their context phase in the newest step.',
    (_, last) => last?.inflightBatchingStats.numContextRequests,
  ],
  trtllm_num_generation_requests: [
    'Sequences in their generation phase in the newest step.',
    (_, last) => last?.inflightBatchingStats.numGenRequests,
  ],
  trtllm_num_paused_requests: [
    'Sequences preempted in the newest step.',
    (_, last) => last?.inflightBatchingStats.numPausedRequests,
  ],
  trtllm_num_scheduled_requests: [
    'Sequences in the newest step.',
    (_, last) => last?.inflightBatchingStats.numScheduledRequests,
  ],
  trtllm_total_context_tokens: [
    'Context tokens in the newest step.',
    (_, last) => last?.inflightBatchingStats.numCtxTokens,
  ],
  trtllm_avg_decoded_tokens_per_iter: [
    'Tokens a sequence gets in a step.',
    (_, last) => last?.inflightBatchingStats.avgNumDecodedTokensPerIter,
  ],
};

/** Totals since the engine's start: counters grow by their differences, as a new engine begins at zero. */
const totals: Readonly<Record<string, readonly [help: string, reading: (statistics: ExecutorStatistics) => number]>> = {
  trtllm_kv_cache_reused_blocks_total: [
    'KV blocks found in the cache.',
    ({ kvCacheStats }) => kvCacheStats.reusedBlocks,
  ],
  trtllm_kv_cache_missed_blocks_total: [
    'KV blocks looked for and not found.',
    ({ kvCacheStats }) => kvCacheStats.missedBlocks,
  ],
  trtllm_num_requests_completed_total: ['Sequences completed.', ({ numCompletedRequests }) => numCompletedRequests],
  typert_preemptions_total: [
    'Sequences that gave their blocks back and were computed again.',
    ({ numPreemptions }) => numPreemptions,
  ],
  typert_iterations_total: ['Steps of the engine.', ({ numIterations }) => numIterations],
};

const queue = [0.001, 0.005, 0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 60, 120, 240, 480];
const step = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];

export class EngineMetrics {
  readonly #label: string;
  readonly #gauges: readonly (readonly [Gauge<string>, Reading])[];
  readonly #totals: readonly (readonly [Counter<string>, string, (statistics: ExecutorStatistics) => number])[];
  readonly #queueTime: Histogram<string>;
  readonly #stepTime: Histogram<string>;
  readonly #seen = new Map<string, Map<string, number>>();

  constructor(numbers: Numbers, label: string) {
    this.#label = label;
    const common = { labelNames: [label], registers: [numbers] };
    this.#gauges = Object.entries(gauges).map(([name, [help, reading]]) => [
      new Gauge({ name, help, ...common }),
      reading,
    ]);
    this.#totals = Object.entries(totals).map(([name, [help, reading]]) => [
      new Counter({ name, help, ...common }),
      name,
      reading,
    ]);
    this.#queueTime = new Histogram({
      name: 'trtllm_request_queue_time_seconds',
      help: 'Time that sequences waited for a place in the batch: the mean of those that joined in one step.',
      buckets: queue,
      ...common,
    });
    this.#stepTime = new Histogram({
      name: 'typert_iteration_seconds',
      help: 'Time of the engine’s steps.',
      buckets: step,
      ...common,
    });
  }

  take(model: string, statistics: ExecutorStatistics): void {
    const labels = { [this.#label]: model };
    const last = statistics.iterations.at(-1);
    for (const [gauge, reading] of this.#gauges) {
      const value = reading(statistics, last);
      if (value !== undefined && Number.isFinite(value)) gauge.set(labels, value);
    }
    let seen = this.#seen.get(model);
    if (seen === undefined) this.#seen.set(model, (seen = new Map()));
    for (const [counter, name, reading] of this.#totals) {
      const value = reading(statistics);
      counter.inc(labels, Math.max(0, value - (seen.get(name) ?? 0)));
      seen.set(name, value);
    }
    const newest = seen.get('iter') ?? -1;
    for (const iteration of statistics.iterations) {
      if (iteration.iter <= newest) continue;
      this.#stepTime.observe(labels, iteration.iterLatencyMS / 1000);
      const { numNewActiveRequests: joined, newActiveRequestsQueueLatencyMS: waited } = iteration;
      for (let i = 0; i < joined; i++) this.#queueTime.observe(labels, waited / joined / 1000);
    }
    if (last !== undefined) seen.set('iter', last.iter);
  }

  /** A new engine counts from zero. */
  forget(model: string): void {
    this.#seen.delete(model);
  }
}
