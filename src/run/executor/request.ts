// The nouns of the executor: a request as the user hands it in and as it crosses to the engine, and its sequences while they run.
import { RequestError, show } from '../../base/errors.ts';
import { BeamSearch } from '../decode/beam-search.ts';
import type { Guide } from '../decode/guided.ts';
import { createLogitsProcessors, type LogitsProcessor, numEndings } from '../decode/logits.ts';
import type { TokenLogprobs } from '../decode/logprobs.ts';
import type { Drafter } from '../decode/ngram.ts';
import { nextTopP, resolveSamplingParams } from '../decode/resolve.ts';
import type { DecodingParams, SamplingParams } from '../decode/sampling-params.ts';
import { BlockKeys } from '../kv/block-keys.ts';
import { BlockTable } from '../kv/block-table.ts';
import { CacheLayout } from '../kv/layout.ts';
import type { Content } from '../kv/matching.ts';
import { type BlockRetention, checkRetention, type KvCacheRetentionConfig, retentionAt } from '../kv/retention.ts';
import type { SessionLimits } from '../session/batch.ts';
import type { GenerationEntry } from './plan.ts';

/** What a user asks of the executor. */
export interface RequestOptions {
  readonly promptTokenIds: readonly number[] | Int32Array;
  readonly samplingParams?: SamplingParams;
  /** From 0 to 1; greater is served first, but for who has waited much longer (`SchedulerConfig.priorityAgingMs`). Default 0.5. */
  readonly priority?: number;
  /** Aborting it cancels the request: reading on throws the signal's reason. */
  readonly signal?: AbortSignal;
  /** Milliseconds that the request may take from its arrival; then it ends with what it has and finishReason 'timeout'. */
  readonly allottedTimeMs?: number;
  /** Requests share cached prefixes only with requests of the same salt. Default: none, shared with all that have none. */
  readonly cacheSalt?: string;
  /** How long the request's blocks are kept for others. */
  readonly kvCacheRetentionConfig?: KvCacheRetentionConfig;
}

/** A checked request: plain data that crosses a thread. */
export interface RequestData {
  readonly requestId: number;
  readonly promptTokenIds: Int32Array;
  /** `maxTokens` fits maxSeqLen, `seed` is set. */
  readonly params: DecodingParams & { readonly seed: bigint };
  readonly priority: number;
  readonly allottedTimeMs?: number;
  readonly cacheSalt?: string;
  readonly kvCacheRetentionConfig?: KvCacheRetentionConfig;
  /** Milliseconds since the epoch. */
  readonly arrivalTime: number;
}

/** What `checkRequest` leaves open. */
export type CheckedRequest = Omit<RequestData, 'requestId' | 'arrivalTime' | 'params'> & {
  readonly params: DecodingParams;
};

/**
 * Checks a request against what the engine can ever serve. Throws RequestError: no prompt, a token outside the vocabulary, a prompt that leaves no room in maxSeqLen, sampling
 * parameters out of range, a sequence larger than the KV cache.
 */
export function checkRequest(options: RequestOptions, limits: SessionLimits): CheckedRequest {
  const params = resolveSamplingParams(options.samplingParams ?? {}, limits.vocabSize);
  const promptTokenIds = checkPrompt(options.promptTokenIds, params.truncatePromptTokens, limits);
  const { priority = 0.5 } = options;
  if (!(priority >= 0 && priority <= 1))
    throw new RequestError('not a priority', {
      where: 'priority',
      expected: 'a number from 0 to 1',
      got: show(priority),
    });
  const { cacheSalt, kvCacheRetentionConfig, allottedTimeMs } = options;
  if (allottedTimeMs !== undefined && !(typeof allottedTimeMs === 'number' && allottedTimeMs > 0))
    throw new RequestError('not a time', {
      where: 'allottedTimeMs',
      expected: 'milliseconds > 0',
      got: show(allottedTimeMs),
    });
  if (cacheSalt !== undefined && typeof cacheSalt !== 'string')
    throw new RequestError('not a salt', { where: 'cacheSalt', expected: 'a text', got: show(cacheSalt) });
  if (kvCacheRetentionConfig !== undefined) checkRetention(kvCacheRetentionConfig);
  const maxTokens = Math.min(params.maxTokens, limits.maxSeqLen - promptTokenIds.length);
  // The last token of a sequence is never put in the cache.
  const blocks = blocksOf(params, promptTokenIds.length, maxTokens, limits);
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
    ...(allottedTimeMs === undefined ? {} : { allottedTimeMs }),
    ...(cacheSalt === undefined ? {} : { cacheSalt }),
    ...(kvCacheRetentionConfig === undefined ? {} : { kvCacheRetentionConfig }),
  };
}

/** Blocks that a request takes at most: beams share the prompt's full blocks. */
function blocksOf({ beam, bestOf }: DecodingParams, promptLength: number, maxTokens: number, limits: SessionLimits) {
  const layout = new CacheLayout(limits);
  if (beam === undefined) return layout.blocksOf(promptLength + maxTokens - 1);
  const most = Math.min(limits.maxBatchSize, limits.maxNumTokens, limits.maxNumLogits);
  if (bestOf > most)
    throw new RequestError('more beams than a step can have', {
      where: 'samplingParams.bestOf',
      expected: `at most ${most}`,
      got: show(bestOf),
      remedy: 'Build the engine with a greater maxBatchSize',
    });
  return layout.blocksOfBeams(promptLength, promptLength + maxTokens - 1, bestOf);
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

/** See `SchedulerConfig.priorityAgingMs`. */
export const defaultPriorityAgingMs = 60_000;

/** A request in the engine. Its sequences are scheduled one by one, as if each were a request, but share the prompt's blocks. */
export class Request {
  readonly data: RequestData;
  /** Number by arrival. */
  readonly order: number;
  /** When it would have arrived with priority 0: earlier is served first, so that nobody waits for ever. The same for all where priority alone counts. */
  readonly rank: number;
  readonly sequences: readonly Sequence[];
  /** The prompt is computed and the held sequences are let go. */
  promptDone = false;
  /** Whether rows of the prompt's logits are read, not only the last one. */
  readonly wantsPromptLogits: boolean;
  /** Set: the sequences are beams. They are computed in the same step, or none of them is. */
  readonly beams: Beams | undefined;
  numPreemptions = 0;
  /** Prompt tokens that were found in the cache when the request was first scheduled. */
  cachedTokens = 0;
  firstPlanned = true;
  firstScheduledTime: number | undefined;
  firstTokenTime: number | undefined;
  firstIter: number | undefined;

  constructor(data: RequestData, order: number, layout: CacheLayout, agingMs: number = defaultPriorityAgingMs) {
    this.data = data;
    this.order = order;
    this.rank = agingMs === Number.POSITIVE_INFINITY ? 0 : data.arrivalTime - data.priority * agingMs;
    const { beam, bestOf, maxTokens } = data.params;
    this.wantsPromptLogits = data.params.returnContextLogits || data.params.promptLogprobs !== undefined;
    this.beams = beam === undefined ? undefined : new BeamSearch(beam, maxTokens, numEndings(data.params));
    this.sequences = Array.from({ length: bestOf }, (_, index) => new Sequence(this, index, layout));
  }

  /** Whether tokens may be proposed: each one's row has to be sampled as it is, or as its grammar allows. */
  get mayDraft(): boolean {
    const { userProcessor, topPDecay } = this.data.params;
    return (
      this.beams === undefined &&
      userProcessor === undefined &&
      topPDecay === 1 &&
      this.sequences[0]!.processors.length === 0
    );
  }

  get finished(): boolean {
    return this.sequences.every((sequence) => sequence.status === 'finished');
  }
}

export class Sequence implements Content {
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
  table: BlockTable;
  keys: BlockKeys;
  /** Prompt positions whose logits have been asked of a step. Stays over preemption: they are computed once. */
  numPromptLogits = 0;
  readonly pending: PendingToken[] = [];
  numEmitted = 0;
  cumulativeLogprob = 0;
  /** Of the next token. */
  topP: number;
  numIterations = 0;
  /** Itself alone: what is sampled in its generation phase. */
  readonly alone: readonly [Sequence];
  /** Whether the host looks at its row of logits. */
  readonly wantsRow: boolean;
  /** Whether a grammar masks its row. */
  readonly guided: boolean;
  /** Whether all that its tokens need is to be counted and passed on: no stop words, log-probabilities, logits. */
  readonly plain: boolean;
  /** Its parts of plans, in the generation phase. */
  readonly turns: [GenerationEntry | undefined, GenerationEntry | undefined] = [undefined, undefined];
  /** What its grammar allows next. */
  guide: Guide | undefined;
  /** Proposes tokens. */
  drafter: Drafter | undefined;
  /** The plan that it was last part of. */
  planned = 0;
  readonly #decays: boolean;
  /** The last of `tokens` is still being computed: a stand-in holds its place. */
  #expecting = false;
  #processors: LogitsProcessor[] | undefined;

  constructor(request: Request, index: number, layout: CacheLayout) {
    const { promptTokenIds, params, cacheSalt = '' } = request.data;
    this.request = request;
    this.index = index;
    this.table = new BlockTable(layout.numGroups);
    this.topP = params.topP;
    this.alone = [this];
    this.#decays = params.topPDecay !== 1;
    this.wantsRow =
      params.logprobs !== undefined ||
      params.returnGenerationLogits ||
      params.userProcessor !== undefined ||
      request.beams !== undefined ||
      this.processors.length > 0;
    this.guided = params.guidedDecoding !== undefined;
    this.plain = !this.wantsRow && !this.guided && params.stopWords.length === 0 && params.stopTokenIds.length === 0;
    this.keys = new BlockKeys(cacheSalt, layout.tokensPerBlock);
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

  /** Tokens that may come from the cache: not the last one, whose logits are wanted, and none whose prompt logits are. */
  get numReusable(): number {
    const most = this.numTokens - 1;
    return this.index === 0 && this.request.wantsPromptLogits ? Math.min(most, this.numPromptLogits) : most;
  }

  retention(position: number): BlockRetention | undefined {
    return retentionAt(this.request.data.kvCacheRetentionConfig, position, this.promptLength);
  }

  get processors(): readonly LogitsProcessor[] {
    // Those of beams are made for each token: the history that they would count changes.
    this.#processors ??= this.request.beams === undefined ? createLogitsProcessors(this.request.data.params) : [];
    return this.#processors;
  }

  /** Back to the prompt: all that was generated is forgotten. */
  restart(): void {
    this.numTokens = this.promptLength;
    this.keys.truncate(this.promptLength);
  }

  /** Whether its next token can be planned before the last one is known: nobody looks at its row, and nothing of how it is sampled depends on what was sampled. */
  get foreseeable(): boolean {
    return !this.wantsRow && !this.guided && (this.drafter === undefined || this.drafter.pauses) && !this.#decays;
  }

  /** All tokens it may have are there or being computed. */
  get complete(): boolean {
    return this.#expecting && this.numGenerated >= this.request.data.params.maxTokens;
  }

  /** A token is being sampled, in row `row` of the step under way. Until `append` tells which, its place in `tokens` holds what `Batch.tokens` says of such tokens. */
  expect(row: number): void {
    this.reserve(this.numTokens + 1);
    this.tokens[this.numTokens++] = -1 - row;
    this.#expecting = true;
  }

  /** The token under way is not wanted any more. */
  forgo(): void {
    if (this.#expecting) this.numTokens--;
    this.#expecting = false;
  }

  append(token: number): void {
    this.forgo();
    this.reserve(this.numTokens + 1);
    this.tokens[this.numTokens++] = token;
    if (this.#decays) this.topP = nextTopP(this.request.data.params, this.topP, token);
  }

  /** Makes room for so many tokens. */
  reserve(numTokens: number): void {
    if (numTokens <= this.tokens.length) return;
    const tokens = new Int32Array(Math.max(numTokens, Math.min(this.tokens.length * 2, this.maxCached + 1)));
    tokens.set(this.tokens);
    this.tokens = tokens;
  }
}

/** The search of a request, with what is told of each token. */
export type Beams = BeamSearch<PendingToken>;

/** Who goes first: who has waited longer, priority counted as waiting, then greater priority, then earlier arrival, then lower index. Negative when `a` does. */
export function compareRank({ request: a, index }: Sequence, { request: b, index: other }: Sequence): number {
  return a.rank - b.rank || b.data.priority - a.data.priority || a.order - b.order || index - other;
}
