// Runs the requests of a bench through an LLM and notes when each began, got its first token and ended.
import type { Progress } from '../../base/progress.ts';
import type { LLM } from '../../llm/llm.ts';
import type { BenchRequest } from './dataset.ts';

/** One request as it went; times in milliseconds of the process's clock. */
export interface RequestRecord {
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly start: number;
  readonly firstToken: number;
  readonly end: number;
}

export interface Measured {
  readonly records: readonly RequestRecord[];
  /** From the first request's start to the last one's end, milliseconds. */
  readonly total: number;
}

async function runOne(llm: LLM, { input, outputTokens }: BenchRequest, cacheSalt: string): Promise<RequestRecord> {
  const start = performance.now();
  let firstToken = 0;
  let [inputTokens, generated] = [0, 0];
  const params = { maxTokens: outputTokens, temperature: 0, ignoreEos: true };
  for await (const part of llm.generateAsync(input, params, { cacheSalt })) {
    if (generated === 0) firstToken = performance.now();
    inputTokens = part.promptTokenIds.length;
    generated = part.outputs[0]?.tokenIds.length ?? generated;
  }
  return { inputTokens, outputTokens: generated, start, firstToken, end: performance.now() };
}

/** Runs all requests, at most `concurrency` at once, in their order. Calls of another `round` find nothing of theirs in the KV cache. */
export async function measure(
  llm: LLM,
  requests: readonly BenchRequest[],
  concurrency: number,
  round: string,
  progress: Progress,
): Promise<Measured> {
  const records: RequestRecord[] = [];
  const queue = requests.values();
  const start = performance.now();
  const workers = Array.from({ length: Math.min(concurrency, requests.length) }, async () => {
    for (const request of queue) {
      records.push(await runOne(llm, request, round));
      progress({ task: 'requests', done: records.length, total: requests.length, unit: 'steps' });
    }
  });
  await Promise.all(workers);
  return { records, total: performance.now() - start };
}
