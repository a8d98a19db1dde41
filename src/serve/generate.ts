// One request through one model: takes a place, starts, watches for the numbers, and gives the place back however it ends.

import type { PromptInput } from '../llm/inputs.ts';
import type { StreamedCompletionOutput, StreamedRequestOutput } from '../llm/outputs.ts';
import type { SamplingParams } from '../run/decode/sampling-params.ts';
import type { Observer, Outcome } from './model.ts';
import type { Model } from './registry.ts';

export interface Job {
  readonly model: Model;
  readonly input: PromptInput;
  readonly params: SamplingParams;
  /** Aborting it cancels the request, started or not. */
  readonly signal: AbortSignal;
  readonly priority?: number;
  /** Cached prefixes are shared only with requests of the same salt. */
  readonly cacheSalt?: string;
  readonly observer?: Observer;
}

/** Starts a request and gives its stream. Throws at once when it is refused: RequestError, or ServeError 429 and 503. */
export function generate(job: Job): AsyncGenerator<StreamedRequestOutput, void, undefined> {
  const { model, input, params, signal, priority, cacheSalt, observer } = job;
  signal.throwIfAborted();
  // Ended by whoever asked, or by the server.
  const ender = new AbortController();
  const either = AbortSignal.any([signal, ender.signal]);
  const { llm, release } = model.acquire((reason) => ender.abort(reason));
  const started = performance.now();
  let stream: AsyncGenerator<StreamedRequestOutput, void, undefined>;
  try {
    stream = llm.generateAsync(input, params, {
      signal: either,
      ...(priority === undefined ? {} : { priority }),
      ...(cacheSalt === undefined ? {} : { cacheSalt }),
    });
  } catch (error) {
    release();
    model.report(error, llm);
    throw error;
  }
  observer?.requestStarted?.(model.name);
  const late = decidedLate(params);
  let ended = false;
  let firstToken: number | undefined;
  let last = started;
  let promptTokens = 0;
  let completionTokens = 0;
  const end = (outcome: Outcome): void => {
    if (ended) return;
    ended = true;
    release();
    either.removeEventListener('abort', cancelled);
    const now = performance.now();
    observer?.requestEnded?.({
      model: model.name,
      params,
      started,
      firstToken,
      ended: now,
      promptTokens,
      completionTokens,
      outcome,
    });
  };
  // A stream that nobody has begun to read runs no `finally`: the signal alone tells of its end.
  const cancelled = (): void => end('cancelled');
  either.addEventListener('abort', cancelled, { once: true });
  const count = (output: StreamedRequestOutput): void => {
    promptTokens = output.promptTokenIds.length;
    let tokens = 0;
    for (const { tokenIdsDelta } of output.outputs) tokens += tokenIdsDelta.length;
    if (tokens === 0) return;
    const now = performance.now();
    if (firstToken === undefined) {
      firstToken = now;
      observer?.firstToken?.(model.name, now - started);
    } else observer?.tokens?.(model.name, tokens, now - last);
    last = now;
    completionTokens += tokens;
  };
  async function* read(): AsyncGenerator<StreamedRequestOutput, void, undefined> {
    let outcome: Outcome = 'cancelled';
    try {
      for await (const output of stream) {
        count(output);
        if (output.finished) outcome = output.outputs[0]?.finishReason ?? 'stop';
        if (!late) yield output;
        else if (output.finished) yield { ...output, outputs: output.outputs.map(asNew) };
      }
    } catch (error) {
      outcome = either.aborted ? 'cancelled' : 'error';
      model.report(error, llm);
      throw error;
    } finally {
      end(outcome);
    }
  }
  return read();
}

/** Which sequences are the best is known at their end: until then there is nothing to tell. */
export function decidedLate({ n = 1, bestOf = n, useBeamSearch }: SamplingParams): boolean {
  return useBeamSearch === true || bestOf > n;
}

function asNew(output: StreamedCompletionOutput): StreamedCompletionOutput {
  return { ...output, textDelta: output.text, tokenIdsDelta: output.tokenIds };
}

/** Several streams as one, whichever is first; each with its number. Leaving it leaves all. */
export function merge<T>(streams: readonly AsyncGenerator<T, void, undefined>[]): AsyncIterable<[number, T]> {
  // A generator around a single one would add a third to what a token costs on its way.
  return streams.length === 1 ? numbered(streams[0]!) : race(streams);
}

function numbered<T>(stream: AsyncGenerator<T, void, undefined>): AsyncIterable<[number, T]> {
  const tell = ({ done, value }: IteratorResult<T, void>): IteratorResult<[number, T], void> =>
    done ? { done, value: undefined } : { done: false, value: [0, value as T] };
  const iterator = {
    next: () => stream.next().then(tell),
    return: () => stream.return().then(tell),
  };
  return { [Symbol.asyncIterator]: () => iterator };
}

async function* race<T>(streams: readonly AsyncGenerator<T, void, undefined>[]): AsyncGenerator<[number, T]> {
  const next = (at: number) =>
    streams[at]!.next().then((result): { at: number; result: IteratorResult<T, void> } => ({ at, result }));
  const waiting = new Map(streams.map((_, at) => [at, next(at)]));
  // A rejection that comes while another one is being handled must not be unhandled.
  for (const promise of waiting.values()) promise.catch(() => {});
  try {
    while (waiting.size > 0) {
      const { at, result } = await Promise.race(waiting.values());
      waiting.delete(at);
      if (result.done) continue;
      yield [at, result.value];
      const following = next(at);
      following.catch(() => {});
      waiting.set(at, following);
    }
  } finally {
    await Promise.allSettled(streams.map((stream) => stream.return()));
  }
}
