// What a bench found, in trtllm-bench's words: throughput, time to first token (TTFT), time per output token (TPOT), latency, with percentiles.
import type { Measured, RequestRecord } from './measure.ts';

/** A distribution, milliseconds or tokens a second. */
export interface Percentiles {
  readonly average: number;
  readonly minimum: number;
  readonly maximum: number;
  readonly p50: number;
  readonly p90: number;
  readonly p95: number;
  readonly p99: number;
}

/** The engine and the setting, as the report prints them. */
export interface BenchSetting {
  readonly model: string;
  readonly backend: 'TypeRT';
  readonly target: string;
  readonly dtype: string;
  readonly maxBatchSize: number;
  readonly maxNumTokens: number;
  readonly maxSeqLen: number;
  readonly kvCacheBlocks: number;
  readonly concurrency: number;
}

/** Field names of trtllm-bench's JSON report. */
export interface BenchReport {
  readonly engine: BenchSetting;
  readonly request_info: {
    readonly num_requests: number;
    readonly avg_input_length: number;
    readonly avg_output_length: number;
  };
  readonly performance: {
    readonly request_throughput_req_s: number;
    readonly system_output_throughput_tok_s: number;
    readonly system_total_throughput_tok_s: number;
    readonly output_throughput_per_user_tok_s: number;
    readonly total_latency_ms: number;
    readonly avg_request_latency_ms: number;
    readonly request_latency_percentiles_ms: Percentiles;
    readonly ttft_percentiles_ms: Percentiles;
    readonly tpot_percentiles_ms: Percentiles;
  };
}

/** Percentiles by the nearest rank. */
export function percentiles(values: readonly number[]): Percentiles {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0;
  return {
    average: mean(values),
    minimum: at(0),
    maximum: at(1),
    p50: at(0.5),
    p90: at(0.9),
    p95: at(0.95),
    p99: at(0.99),
  };
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((a, b) => a + b, 0) / values.length;
}

/** Milliseconds a token after the first one. */
function timePerToken({ firstToken, end, outputTokens }: RequestRecord): number[] {
  return outputTokens > 1 ? [(end - firstToken) / (outputTokens - 1)] : [];
}

export function makeReport({ records, total }: Measured, engine: BenchSetting): BenchReport {
  const outputs = records.reduce((sum, { outputTokens }) => sum + outputTokens, 0);
  const inputs = records.reduce((sum, { inputTokens }) => sum + inputTokens, 0);
  const latencies = percentiles(records.map(({ start, end }) => end - start));
  const seconds = total / 1e3;
  return {
    engine,
    request_info: {
      num_requests: records.length,
      avg_input_length: inputs / records.length,
      avg_output_length: outputs / records.length,
    },
    performance: {
      request_throughput_req_s: records.length / seconds,
      system_output_throughput_tok_s: outputs / seconds,
      system_total_throughput_tok_s: (inputs + outputs) / seconds,
      output_throughput_per_user_tok_s: mean(
        records.map(({ start, end, outputTokens }) => (1e3 * outputTokens) / (end - start)),
      ),
      total_latency_ms: total,
      avg_request_latency_ms: latencies.average,
      request_latency_percentiles_ms: latencies,
      ttft_percentiles_ms: percentiles(records.map(({ start, firstToken }) => firstToken - start)),
      tpot_percentiles_ms: percentiles(records.flatMap(timePerToken)),
    },
  };
}

/** The report as text. */
export function printReport({ engine, request_info: info, performance: perf }: BenchReport): string {
  const row = (name: string, value: string | number): string =>
    `${name.padEnd(44)} ${typeof value === 'number' ? value.toFixed(value < 100 ? 4 : 1) : value}`;
  const distribution = (name: string, unit: string, values: Percentiles): string[] => [
    '',
    `-- ${name} (${unit})`,
    ...Object.entries(values).map(([key, value]) => row(`[${key.toUpperCase()}]`, value as number)),
  ];
  const title = (text: string): string => `\n${'='.repeat(63)}\n= ${text}\n${'='.repeat(63)}`;
  return [
    title('ENGINE'),
    ...Object.entries(engine).map(([key, value]) => row(key, String(value))),
    title('REQUESTS'),
    row('Number of requests', String(info.num_requests)),
    row('Average input length (tokens)', info.avg_input_length),
    row('Average output length (tokens)', info.avg_output_length),
    title('PERFORMANCE OVERVIEW'),
    row('Request Throughput (req/sec)', perf.request_throughput_req_s),
    row('Total Output Throughput (tokens/sec)', perf.system_output_throughput_tok_s),
    row('Total Token Throughput (tokens/sec)', perf.system_total_throughput_tok_s),
    row('Total Latency (ms)', perf.total_latency_ms),
    row('Average request latency (ms)', perf.avg_request_latency_ms),
    row('Per User Output Throughput (tps/user)', perf.output_throughput_per_user_tok_s),
    ...distribution('Time-to-First-Token [TTFT]', 'ms', perf.ttft_percentiles_ms),
    ...distribution('Time-per-Output-Token [TPOT]', 'ms', perf.tpot_percentiles_ms),
    ...distribution('Request Latency', 'ms', perf.request_latency_percentiles_ms),
    '',
  ].join('\n');
}
