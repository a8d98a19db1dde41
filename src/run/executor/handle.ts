// A request in the user's hands: an async iterable of what is new, and a promise of the whole. What arrives is kept once, as the result in the making; reading takes what lies
// between the reader's marks and the end, so a slow reader gets fewer, larger responses and holds no more memory than the result.
import type { TokenLogprobs } from '../decode/logprobs.ts';
import type { UserLogitsProcessor } from '../decode/sampling-params.ts';
import type { FinishReason, StopReason } from '../decode/stop.ts';
import { deferred } from './deferred.ts';
import {
  bestSequences,
  concatLogits,
  type LogitsTensor,
  type RequestPerfMetrics,
  type Response,
  type Result,
  type SequenceDelta,
  type SequenceOutput,
} from './outputs.ts';
import type { RequestData } from './request.ts';

/** How a sequence was finished from outside. */
export interface Finish {
  readonly finishReason?: FinishReason;
  readonly stopReason?: StopReason;
  /** Keep only the first so many output tokens; default: all that have arrived. */
  readonly numTokens?: number;
}

/** What a handle asks of its executor. */
export interface HandleOwner {
  cancel(requestId: number): void;
  finish(requestId: number, index: number): void;
  /** The request is over for the user. */
  settled(requestId: number): void;
}

class Accumulated {
  readonly tokenIds: number[] = [];
  readonly logprobs: TokenLogprobs[] = [];
  readonly logits: LogitsTensor[] = [];
  cumulativeLogprob = 0;
  finish: { readonly reason: FinishReason; readonly stopReason: StopReason } | undefined;
  // The reader's marks.
  tokensRead = 0;
  logitsRead = 0;
  finishRead = false;

  take(delta: SequenceDelta): void {
    if (this.finish !== undefined) return;
    for (const token of delta.tokenIds) this.tokenIds.push(token);
    for (const entry of delta.logprobs ?? []) this.logprobs.push(entry);
    if (delta.generationLogits !== undefined) this.logits.push(delta.generationLogits);
    this.cumulativeLogprob = delta.cumulativeLogprob;
    if (delta.finishReason !== undefined) this.finish = { reason: delta.finishReason, stopReason: delta.stopReason };
  }

  get hasNews(): boolean {
    return this.tokenIds.length > this.tokensRead || (this.finish !== undefined && !this.finishRead);
  }
}

/** A request that was handed to an executor. Read it by one `for await`, or await `result()`, or both. */
export class RequestHandle implements AsyncIterable<Response> {
  readonly requestId: number;
  /** The user's logits processors. */
  readonly processors: readonly UserLogitsProcessor[];
  readonly #data: RequestData;
  readonly #owner: HandleOwner;
  readonly #sequences: readonly Accumulated[];
  #contextLogits: LogitsTensor | undefined;
  #promptLogprobs: readonly TokenLogprobs[] | undefined;
  #promptRead = false;
  #cachedTokens = 0;
  #perfMetrics: RequestPerfMetrics | undefined;
  #settled = false;
  #error: { readonly cause: unknown } | undefined;
  #news = deferred<void>();
  readonly #end = deferred<void>();

  constructor(data: RequestData, owner: HandleOwner, processors: readonly UserLogitsProcessor[] = []) {
    this.processors = processors;
    this.requestId = data.requestId;
    this.#data = data;
    this.#owner = owner;
    // Of beams only the best are told of.
    const { beam, n, bestOf } = data.params;
    this.#sequences = Array.from({ length: beam === undefined ? bestOf : n }, () => new Accumulated());
    // A request nobody waits for must not end the process when it fails.
    this.#end.promise.catch(() => {});
  }

  /** Ends the request: what is there so far is its result, with finishReason 'cancelled'. */
  cancel(): void {
    if (this.#settled) return;
    this.#owner.cancel(this.requestId);
    for (const index of this.#sequences.keys()) this.#finish(index, { finishReason: 'cancelled' });
  }

  /** Ends one sequence from outside, e.g. because its text holds a stop text: tokens of it that come later are dropped. */
  finish(index: number, how: Finish = {}): void {
    if (this.#settled || this.#sequences[index] === undefined || this.#sequences[index].finish !== undefined) return;
    this.#owner.finish(this.requestId, index);
    this.#finish(index, how);
  }

  /** Resolves when the request is over, rejects with what `result` rejects with. */
  get ended(): Promise<void> {
    return this.#end.promise;
  }

  /** The whole output. Rejects with what ended the request: ExecutorError, RequestError, or the abort signal's reason. */
  async result(): Promise<Result> {
    await this.#end.promise;
    const { n, excludeInputFromOutput } = this.#data.params;
    const prompt = excludeInputFromOutput ? [] : Array.from(this.#data.promptTokenIds);
    const outputs = this.#sequences.map((sequence, index) => this.#output(sequence, index, prompt));
    return {
      requestId: this.requestId,
      promptTokenIds: this.#data.promptTokenIds,
      outputs: bestSequences(outputs, n),
      ...this.#promptParts(),
      cachedTokens: this.#cachedTokens,
      ...(this.#perfMetrics === undefined ? {} : { perfMetrics: this.#perfMetrics }),
    };
  }

  /** What is new, as it comes; the last response has `finished` set. Leaving the loop early cancels the request. Throws what `result` rejects with. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Response, void, undefined> {
    try {
      for (;;) {
        const response = this.#read();
        if (response !== undefined) yield response;
        if (response?.finished) return;
        if (this.#error !== undefined) throw this.#error.cause;
        if (response === undefined) await this.#news.promise;
      }
    } finally {
      this.cancel();
    }
  }

  /** The engine's side: something new arrived. */
  push(response: Response): void {
    if (this.#settled) return;
    for (const delta of response.outputs) this.#sequences[delta.index]?.take(delta);
    this.#contextLogits ??= response.contextLogits;
    this.#promptLogprobs ??= response.promptLogprobs;
    this.#perfMetrics ??= response.perfMetrics;
    this.#cachedTokens = response.cachedTokens ?? 0;
    if (response.finished) this.#settle();
    this.#ring();
  }

  /** The engine's side: the request ends without a result. */
  fail(cause: unknown): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#error = { cause };
    this.#owner.settled(this.requestId);
    this.#end.reject(cause);
    this.#ring();
  }

  #finish(index: number, { finishReason = 'stop', stopReason, numTokens }: Finish): void {
    const sequence = this.#sequences[index]!;
    if (sequence.finish !== undefined) return;
    if (numTokens !== undefined && numTokens < sequence.tokenIds.length) sequence.tokenIds.length = numTokens;
    sequence.finish = { reason: finishReason, stopReason };
    if (this.#sequences.every(({ finish }) => finish !== undefined)) this.#settle();
    this.#ring();
  }

  #settle(): void {
    this.#settled = true;
    this.#owner.settled(this.requestId);
    this.#end.resolve();
  }

  #ring(): void {
    this.#news.resolve();
    this.#news = deferred<void>();
  }

  #promptParts(): Pick<Result, 'contextLogits' | 'promptLogprobs'> {
    return {
      ...(this.#contextLogits === undefined ? {} : { contextLogits: this.#contextLogits }),
      ...(this.#promptLogprobs === undefined ? {} : { promptLogprobs: this.#promptLogprobs }),
    };
  }

  /** What has come since the last call; undefined when nothing has. */
  #read(): Response | undefined {
    const finished = this.#settled && this.#error === undefined;
    const prompt = this.#promptRead ? {} : this.#promptParts();
    const withPrompt = Object.keys(prompt).length > 0;
    const outputs = this.#sequences.flatMap((sequence, index) =>
      sequence.hasNews ? [this.#delta(sequence, index)] : [],
    );
    if (outputs.length === 0 && !withPrompt && !finished) return undefined;
    this.#promptRead ||= withPrompt;
    return {
      requestId: this.requestId,
      outputs,
      finished,
      ...prompt,
      ...(finished ? { cachedTokens: this.#cachedTokens } : {}),
      ...(finished && this.#perfMetrics !== undefined ? { perfMetrics: this.#perfMetrics } : {}),
    };
  }

  #delta(sequence: Accumulated, index: number): SequenceDelta {
    const { params } = this.#data;
    const from = sequence.tokensRead;
    const logits = sequence.logits.slice(sequence.logitsRead);
    sequence.tokensRead = sequence.tokenIds.length;
    sequence.logitsRead = sequence.logits.length;
    sequence.finishRead = sequence.finish !== undefined;
    return {
      index,
      tokenIds: sequence.tokenIds.slice(from),
      ...(params.logprobs === undefined ? {} : { logprobs: sequence.logprobs.slice(from, sequence.tokenIds.length) }),
      ...(params.returnGenerationLogits && logits.length > 0 ? { generationLogits: concatLogits(logits) } : {}),
      cumulativeLogprob: sequence.cumulativeLogprob,
      ...(sequence.finish === undefined
        ? {}
        : { finishReason: sequence.finish.reason, stopReason: sequence.finish.stopReason }),
    };
  }

  #output(sequence: Accumulated, index: number, prompt: readonly number[]): SequenceOutput {
    const { params } = this.#data;
    const { tokenIds, logprobs, cumulativeLogprob, finish } = sequence;
    return {
      index,
      tokenIds: [...prompt, ...tokenIds],
      ...(params.logprobs === undefined ? {} : { logprobs: logprobs.slice(0, tokenIds.length) }),
      ...(params.returnGenerationLogits ? { generationLogits: firstRows(sequence) } : {}),
      cumulativeLogprob,
      finishReason: finish!.reason,
      stopReason: finish!.stopReason,
    };
  }
}

/** The rows of logits of the tokens that were kept. */
function firstRows({ logits, tokenIds }: Accumulated): LogitsTensor {
  const { data, shape } = concatLogits(logits);
  return { data: data.subarray(0, tokenIds.length * shape[1]), shape: [Math.min(shape[0], tokenIds.length), shape[1]] };
}
