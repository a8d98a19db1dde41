// The nouns of serving: what a server needs of a loaded model, where models come from, and how one request is handed to one.

import type { ChatTemplate } from '../llm/chat-template.ts';
import type { LLM } from '../llm/llm.ts';
import type { Tokenizer } from '../llm/tokenizer.ts';
import type { SamplingParams } from '../run/decode/sampling-params.ts';
import type { ExecutorStatistics } from '../run/executor/statistics.ts';

/** What serving reads of a tokenizer. */
export type ServedTokenizer = Pick<
  Tokenizer,
  'encode' | 'decode' | 'idToToken' | 'tokenToId' | 'isSpecial' | 'eosTokenIds'
>;

/** What serving needs of a loaded model; an `LLM` is one. */
export interface ServedLLM
  extends Pick<
      LLM,
      | 'engineDir'
      | 'limits'
      | 'recommendedSamplingParams'
      | 'encode'
      | 'generateAsync'
      | 'statistics'
      | 'snapshot'
      | 'profile'
    >,
    AsyncDisposable {
  readonly config: Pick<LLM['config'], 'pretrained_config' | 'build_config'>;
  readonly tokenizer: ServedTokenizer | undefined;
  readonly chatTemplate: Pick<ChatTemplate, 'render' | 'names'> | undefined;
}

/** How outputs of a model are read. 'auto' looks at the vocabulary. */
export interface ParserChoice {
  readonly toolParser?: string;
  readonly reasoningParser?: string;
}

/** A model by name, and how it is loaded: at start, and again after its engine died. */
export interface ModelSource extends ParserChoice {
  readonly name: string;
  /** Opens it; called again after it was unloaded or its engine died. */
  readonly load: () => Promise<ServedLLM>;
  /** False for a model that somebody else owns: it is neither disposed nor loaded again. Default true. */
  readonly owned?: boolean;
}

/** 'idle': known, not loaded. 'failed': its engine died or could not be opened; it is being tried again, unless the source is not ours. */
export type ModelState = 'idle' | 'loading' | 'ready' | 'failed';

/** How a request ended, for counting. */
export type Outcome = 'stop' | 'length' | 'cancelled' | 'timeout' | 'error';

/** What one request took. Times are milliseconds of `performance.now()`. */
export interface RequestFacts {
  readonly model: string;
  readonly params: SamplingParams;
  readonly started: number;
  readonly firstToken: number | undefined;
  readonly ended: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly outcome: Outcome;
}

/** Who is told what happens; the metrics are one. */
export interface Observer {
  /** A request was taken. */
  requestStarted?(model: string): void;
  /** The first token came so many milliseconds after the request. */
  firstToken?(model: string, milliseconds: number): void;
  /** `count` tokens came `milliseconds` after the ones before. */
  tokens?(model: string, count: number, milliseconds: number): void;
  /** A request is over, however. */
  requestEnded?(facts: RequestFacts): void;
  /** Numbers of the engine, about once a second. */
  statistics?(model: string, statistics: ExecutorStatistics): void;
  /** A model was loaded, unloaded, or died. */
  stateChanged?(model: string, state: ModelState, error: unknown): void;
}

/** One observer that tells all of these. */
export function allOf(observers: readonly Observer[]): Required<Omit<Observer, 'statistics' | 'stateChanged'>> {
  return {
    requestStarted: (model) => observers.forEach((each) => void each.requestStarted?.(model)),
    firstToken: (model, milliseconds) => observers.forEach((each) => void each.firstToken?.(model, milliseconds)),
    tokens: (model, count, milliseconds) => observers.forEach((each) => void each.tokens?.(model, count, milliseconds)),
    requestEnded: (facts) => observers.forEach((each) => void each.requestEnded?.(facts)),
  };
}
