// One request's tokens as text: detokenised, watched for stop strings, put into the words of the LLM API.

import type { SamplingParams } from '../run/decode/sampling-params.ts';
import type { TokenLogprobs as ExecutorLogprobs, RequestHandle, Response } from '../run/executor/index.ts';
import { bestSequences, concatLogits } from '../run/executor/outputs.ts';
import { Detokenizer } from './detokenizer.ts';
import type { ResolvedPrompt } from './inputs.ts';
import type {
  FinishReason,
  Logits,
  Logprob,
  RequestOutput,
  StreamedCompletionOutput,
  StreamedRequestOutput,
  TokenLogprobs,
} from './outputs.ts';
import { StopStrings } from './stop-strings.ts';
import type { Tokenizer } from './tokenizer.ts';

export interface StreamContext {
  readonly handle: RequestHandle;
  readonly prompt: ResolvedPrompt;
  readonly params: SamplingParams;
  readonly tokenizer: Tokenizer | undefined;
  /** Ends of turn that the user did not name as stop tokens: they are not told as a stop reason. */
  readonly hiddenStops: ReadonlySet<number>;
}

function toMaps(entries: readonly ExecutorLogprobs[]): TokenLogprobs {
  return entries.map(
    (position) =>
      new Map(position.map(({ tokenId, logprob, rank }): [number, Logprob] => [tokenId, { logprob, rank }])),
  );
}

/** Sets a property that is computed when it is first read. */
function lazy<T extends object, K extends keyof T>(target: T, key: K, compute: () => T[K] | undefined): void {
  const get = () => {
    const value = compute();
    Object.defineProperty(target, key, { value, enumerable: true });
    return value;
  };
  Object.defineProperty(target, key, { get, enumerable: true, configurable: true });
}

/** One sequence of the request, growing. */
class Sequence {
  readonly index: number;
  readonly #context: StreamContext;
  readonly #detokenizer: Detokenizer | undefined;
  readonly #stops: StopStrings | undefined;
  readonly tokenIds: number[] = [];
  readonly #logprobs: Map<number, Logprob>[] = [];
  readonly #logits: Logits[] = [];
  #text = '';
  #cumulative = 0;
  #finishReason: FinishReason = null;
  #stopReason: number | string | null = null;
  #textRead = 0;
  #tokensRead = 0;

  constructor(index: number, context: StreamContext) {
    const { params, tokenizer } = context;
    this.index = index;
    this.#context = context;
    const wantsText = tokenizer !== undefined && (params.detokenize ?? true);
    this.#detokenizer = wantsText
      ? new Detokenizer(tokenizer, { skipSpecialTokens: params.skipSpecialTokens ?? true })
      : undefined;
    const stop = params.stop === undefined ? [] : typeof params.stop === 'string' ? [params.stop] : params.stop;
    this.#stops =
      wantsText && stop.length > 0
        ? new StopStrings(stop, { includeStopInOutput: params.includeStopStrInOutput ?? false })
        : undefined;
  }

  take(delta: Response['outputs'][number]): void {
    if (this.#finishReason !== null) return;
    delta.tokenIds.forEach((token, i) => {
      if (this.#finishReason !== null) return;
      this.tokenIds.push(token);
      const entry = delta.logprobs?.[i];
      if (entry !== undefined) this.#logprobs.push(...(toMaps([entry]) as Map<number, Logprob>[]));
      this.#addText(this.#detokenizer?.push([token]) ?? '');
    });
    if (delta.generationLogits !== undefined) this.#logits.push(delta.generationLogits);
    this.#cumulative = delta.cumulativeLogprob;
    if (this.#finishReason !== null || delta.finishReason === undefined) return;
    this.#addText(this.#detokenizer?.flush() ?? '');
    if (this.#finishReason !== null) return;
    this.#text += this.#stops?.flush() ?? '';
    this.#finishReason = delta.finishReason;
    const reason = delta.stopReason;
    if (typeof reason === 'number') this.#stopReason = this.#context.hiddenStops.has(reason) ? null : reason;
    else if (reason !== undefined)
      this.#stopReason =
        typeof reason === 'string' ? reason : (this.#context.tokenizer?.decode(reason) ?? reason.join(' '));
  }

  #addText(delta: string): void {
    if (this.#stops === undefined) {
      this.#text += delta;
      return;
    }
    const { text, stop } = this.#stops.push(delta);
    this.#text += text;
    if (stop === null) return;
    this.#finishReason = 'stop';
    this.#stopReason = stop;
    // Tokens after the one that completed the stop string are not part of the output.
    this.#context.handle.finish(this.index, {
      finishReason: 'stop',
      stopReason: stop,
      numTokens: this.tokenIds.length,
    });
  }

  get finished(): boolean {
    return this.#finishReason !== null;
  }

  get hasNews(): boolean {
    return this.tokenIds.length > this.#tokensRead || this.#text.length > this.#textRead || this.finished;
  }

  output(): StreamedCompletionOutput {
    const { params } = this.#context;
    const [all, entries, parts] = [this.tokenIds, this.#logprobs, this.#logits];
    const [from, count, numParts] = [this.#tokensRead, all.length, parts.length];
    let tokenIds: number[] | undefined;
    // What grows is copied when it is looked at, so that a stream costs no more than its deltas.
    const output: StreamedCompletionOutput = {
      index: this.index,
      text: this.#text,
      textDelta: this.#text.slice(this.#textRead),
      get tokenIds() {
        tokenIds ??= all.slice(0, count);
        return tokenIds;
      },
      tokenIdsDelta: all.slice(from),
      cumulativeLogprob: this.#cumulative,
      finishReason: this.#finishReason,
      stopReason: this.#stopReason,
    };
    if (params.logprobs !== undefined) lazy(output, 'logprobs', () => entries.slice(0, count));
    if (params.returnGenerationLogits)
      lazy(output, 'generationLogits', () => (numParts === 0 ? undefined : concatLogits(parts.slice(0, numParts))));
    this.#textRead = this.#text.length;
    this.#tokensRead = count;
    return output;
  }
}

/** Yields the request's outputs as they grow; the last has `finished: true`. Leaving the loop cancels the request. */
export async function* streamRequest(context: StreamContext): AsyncGenerator<StreamedRequestOutput, void, undefined> {
  const { handle, prompt, params } = context;
  // Of beams only the best are told of.
  const count = (params.useBeamSearch ? undefined : params.bestOf) ?? params.n ?? 1;
  const sequences = Array.from({ length: count }, (_, index) => new Sequence(index, context));
  let contextLogits: Logits | undefined;
  let promptLogprobs: TokenLogprobs | undefined;
  let cachedTokens: number | undefined;
  const snapshot = (finished: boolean): StreamedRequestOutput => {
    const all = sequences.map((sequence) => sequence.output());
    const outputs = finished ? bestSequences(all, params.n ?? 1) : all;
    return {
      requestId: handle.requestId,
      prompt: prompt.prompt,
      promptTokenIds: prompt.promptTokenIds,
      finished,
      ...(cachedTokens === undefined ? {} : { cachedTokens }),
      ...(contextLogits === undefined ? {} : { contextLogits }),
      ...(promptLogprobs === undefined ? {} : { promptLogprobs }),
      outputs,
      textDelta: outputs[0]?.textDelta ?? '',
    };
  };
  for await (const response of handle) {
    for (const delta of response.outputs) sequences[delta.index]!.take(delta);
    contextLogits ??= response.contextLogits;
    cachedTokens ??= response.cachedTokens;
    if (response.promptLogprobs !== undefined) promptLogprobs ??= toMaps(response.promptLogprobs);
    const finished = response.finished || sequences.every((sequence) => sequence.finished);
    if (finished || sequences.some((sequence) => sequence.hasNews)) yield snapshot(finished);
    if (finished) return;
  }
}

/** The whole of a stream, without its deltas. */
export async function collect(stream: AsyncIterable<StreamedRequestOutput>): Promise<RequestOutput> {
  let last: StreamedRequestOutput | undefined;
  for await (const output of stream) last = output;
  const { textDelta: _text, outputs, ...rest } = last!;
  return { ...rest, outputs: outputs.map(({ textDelta: _delta, tokenIdsDelta: _ids, ...output }) => output) };
}
