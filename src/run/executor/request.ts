// The nouns of the executor: a request as the user hands it in and as it crosses to the engine, and its sequences while they run.
import { RequestError, show } from '../../base/errors.ts';
import { createLogitsProcessors, type LogitsProcessor } from '../decode/logits.ts';
import type { TokenLogprobs } from '../decode/logprobs.ts';
import { resolveSamplingParams } from '../decode/resolve.ts';
import type { DecodingParams, SamplingParams } from '../decode/sampling-params.ts';
import { BlockTable } from '../kv/block-table.ts';
import type { SessionLimits } from '../session/batch.ts';

/** What a user asks of the executor. */
export interface RequestOptions {
  readonly promptTokenIds: readonly number[] | Int32Array;
  readonly samplingParams?: SamplingParams;
  /** From 0 to 1; greater is served first. Default 0.5. */
  readonly priority?: number;
  /** Aborting it cancels the request: reading on throws the signal's reason. */
  readonly signal?: AbortSignal;
}

/** A checked request: plain data that crosses a thread. */
export interface RequestData {
  readonly requestId: number;
  readonly promptTokenIds: Int32Array;
  /** `maxTokens` fits maxSeqLen, `seed` is set. */
  readonly params: DecodingParams & { readonly seed: bigint };
  readonly priority: number;
  /** Milliseconds since the epoch. */
  readonly arrivalTime: number;
}

/**
 * Checks a request against what the engine can ever serve. Throws RequestError: no prompt, a token outside the vocabulary, a prompt that leaves no room in maxSeqLen, sampling
 * parameters out of range, a sequence larger than the KV cache.
 */
export function checkRequest(
  options: RequestOptions,
  limits: SessionLimits,
): Pick<RequestData, 'promptTokenIds' | 'priority'> & { readonly params: DecodingParams } {
  const params = resolveSamplingParams(options.samplingParams ?? {}, limits.vocabSize);
  const promptTokenIds = checkPrompt(options.promptTokenIds, params.truncatePromptTokens, limits);
  const { priority = 0.5 } = options;
  if (!(priority >= 0 && priority <= 1))
    throw new RequestError('not a priority', {
      where: 'priority',
      expected: 'a number from 0 to 1',
      got: show(priority),
    });
  const maxTokens = Math.min(params.maxTokens, limits.maxSeqLen - promptTokenIds.length);
  // The last token of a sequence is never put in the cache.
  const blocks = Math.ceil((promptTokenIds.length + maxTokens - 1) / limits.tokensPerBlock);
  if (blocks > limits.numBlocks)
    throw new RequestError('the request can never fit the KV cache', {
      expected: `at most ${limits.numBlocks} blocks of ${limits.tokensPerBlock} tokens`,
      got: `${promptTokenIds.length} prompt tokens and up to ${maxTokens} more: ${blocks} blocks`,
      remedy: 'Shorten the prompt, lower maxTokens, or raise kvCacheConfig.maxTokens',
    });
  return {
    promptTokenIds,
    priority,
    params: { ...params, maxTokens, minTokens: Math.min(params.minTokens, maxTokens) },
  };
}

function checkPrompt(
  ids: RequestOptions['promptTokenIds'],
  keepLast: number | undefined,
  limits: SessionLimits,
): Int32Array {
  const where = 'promptTokenIds';
  if (!(ids instanceof Int32Array) && !Array.isArray(ids))
    throw new RequestError('not a list of token ids', { where, expected: 'integers', got: show(ids) });
  if (ids.length === 0) throw new RequestError('the prompt is empty', { where, expected: 'at least one token' });
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!;
    if (!Number.isInteger(id) || id < 0 || id >= limits.vocabSize)
      throw new RequestError('not a token of the vocabulary', {
        where: `${where}[${i}]`,
        expected: `an integer from 0 to ${limits.vocabSize - 1}`,
        got: show(id),
      });
  }
  const used = Int32Array.from(keepLast === undefined ? ids : ids.slice(-keepLast));
  if (used.length >= limits.maxSeqLen)
    throw new RequestError('the prompt is too long', {
      where,
      expected: `fewer than maxSeqLen = ${limits.maxSeqLen} tokens, to leave room for one more`,
      got: `${used.length} tokens`,
      remedy: 'Shorten it, set truncatePromptTokens, or build the engine with a greater maxSeqLen',
    });
  return used;
}

/** 'held': waits for its request's first sequence to compute the prompt that they share. */
export type SequenceStatus = 'held' | 'waiting' | 'running' | 'finished';

/** A generated token that is not given out yet. */
export interface PendingToken {
  readonly token: number;
  readonly logprob: number;
  readonly logprobs: TokenLogprobs | undefined;
  /** [vocabSize] */
  readonly logits: Float32Array | undefined;
}

/** A request in the engine. Its sequences are scheduled one by one, as if each were a request, but share the prompt's blocks. */
export class Request {
  readonly data: RequestData;
  /** Arrival rank: breaks ties of priority. */
  readonly order: number;
  readonly sequences: readonly Sequence[];
  /** The prompt is computed and the held sequences are let go. */
  promptDone = false;
  numPreemptions = 0;
  firstScheduledTime: number | undefined;
  firstTokenTime: number | undefined;
  firstIter: number | undefined;

  constructor(data: RequestData, order: number) {
    this.data = data;
    this.order = order;
    this.sequences = Array.from({ length: data.params.bestOf }, (_, index) => new Sequence(this, index));
  }

  /** Whether rows of the prompt's logits are read, not only the last one. */
  get wantsPromptLogits(): boolean {
    return this.data.params.returnContextLogits || this.data.params.promptLogprobs !== undefined;
  }

  get finished(): boolean {
    return this.sequences.every((sequence) => sequence.status === 'finished');
  }
}

export class Sequence {
  readonly request: Request;
  readonly index: number;
  /** Key of the generator: the request's seed + index, modulo 2^64. */
  readonly seedLow: number;
  readonly seedHigh: number;
  status: SequenceStatus;
  /** Prompt and output; `numTokens` of it are used. */
  tokens: Int32Array;
  numTokens: number;
  readonly promptLength: number;
  table = new BlockTable();
  /** Prompt positions whose logits have been asked of a step. Stays over preemption: they are computed once. */
  numPromptLogits = 0;
  readonly pending: PendingToken[] = [];
  numEmitted = 0;
  cumulativeLogprob = 0;
  numIterations = 0;
  #processors: LogitsProcessor[] | undefined;

  constructor(request: Request, index: number) {
    const { promptTokenIds, params } = request.data;
    this.request = request;
    this.index = index;
    const seed = BigInt.asUintN(64, params.seed + BigInt(index));
    this.seedLow = Number(seed & 0xffffffffn);
    this.seedHigh = Number(seed >> 32n);
    this.status = index === 0 ? 'waiting' : 'held';
    this.promptLength = promptTokenIds.length;
    this.numTokens = promptTokenIds.length;
    this.tokens = new Int32Array(promptTokenIds.length + Math.min(params.maxTokens, 64));
    this.tokens.set(promptTokenIds);
  }

  /** Tokens whose keys and values are in the cache, or will be after the step that is planned. */
  get numCached(): number {
    return this.table.numTokens;
  }

  /** Tokens that the next step has to compute before one can be sampled: 1 in the generation phase. */
  get numRemaining(): number {
    return this.numTokens - this.numCached;
  }

  get numGenerated(): number {
    return this.numTokens - this.promptLength;
  }

  /** Tokens in the cache when the sequence is as long as it can get: the last one is never put in. */
  get maxCached(): number {
    return this.promptLength + this.request.data.params.maxTokens - 1;
  }

  get processors(): readonly LogitsProcessor[] {
    this.#processors ??= createLogitsProcessors(this.request.data.params);
    return this.#processors;
  }

  append(token: number): void {
    if (this.numTokens === this.tokens.length) {
      const tokens = new Int32Array(Math.min(this.tokens.length * 2, this.maxCached + 1));
      tokens.set(this.tokens);
      this.tokens = tokens;
    }
    this.tokens[this.numTokens++] = token;
  }
}

/** Who goes first: greater priority, then earlier arrival, then lower index. Negative when `a` does. */
export function compareRank(a: Sequence, b: Sequence): number {
  const byPriority = b.request.data.priority - a.request.data.priority;
  if (byPriority !== 0) return byPriority;
  return a.request.order - b.request.order || a.index - b.index;
}
