// How a request is decoded: what the user writes (TensorRT-LLM's SamplingParams in camelCase) and what the executor runs. resolve.ts turns one into the other.

import type { BeamParams } from './beam-search.ts';

/** One bias for each token id: dense [vocabSize], or the few ids that have one. */
export type EmbeddingBias = Float32Array | readonly number[] | ReadonlyMap<number, number>;

/** One row of logits on its way to be sampled. */
export interface LogitsProcessorCall {
  readonly requestId: number;
  /** Which sequence (or beam) of the request. */
  readonly index: number;
  /** Prompt and output so far. */
  readonly tokenIds: Int32Array;
  readonly promptLength: number;
  /** [vocabSize], to be changed in place. */
  readonly logits: Float32Array;
}

/** What the output has to be; one of them. */
export interface GuidedDecodingParams {
  /** JSON that keeps to this JSON schema (an object, or its text). */
  readonly json?: string | Readonly<Record<string, unknown>>;
  /** Any JSON. */
  readonly jsonObject?: true;
  readonly regex?: string;
  /** A grammar in GBNF, an extended Backus-Naur form; it begins at `root`. */
  readonly grammar?: string;
  /** xgrammar's structural tags (an object, or its text). */
  readonly structuralTag?: string | Readonly<Record<string, unknown>>;
}

/** A logits processor as a user writes it: it may change the row in place, at once or in its own time. */
export type UserLogitsProcessor = (call: LogitsProcessorCall) => void | Promise<void>;

/**
 * Decoding of one request. Every field is optional. Decoding is greedy when `temperature` is 0, `topK` is 1 or `topP` is 0, and when none of temperature, topK, topP and minP is set,
 * as in TensorRT-LLM.
 */
export interface SamplingParams {
  /** Tokens to generate at most, ≥ 1; default 32. Fewer when the sequence reaches the engine's maxSeqLen. */
  readonly maxTokens?: number;
  /** No end or stop before so many tokens, ≥ 0; default 0. */
  readonly minTokens?: number;
  /** Sequences to return, ≥ 1; default 1. Sequence i draws with seed + i. */
  readonly n?: number;
  /** Sequences to generate, of which the `n` with the greatest cumulative log-probability are returned; ≥ n, default n. */
  readonly bestOf?: number;

  /** ≥ 0; default 1 when sampling. */
  readonly temperature?: number;
  /** Sample among the so many likeliest tokens, ≥ 0; default 0: all. */
  readonly topK?: number;
  /** Sample among the fewest likeliest tokens with at least this probability together, from 0 to 1; default 1: all. */
  readonly topP?: number;
  /** After each token topP is multiplied by it, > 0 to 1; default 1 (factual-nucleus sampling, Lee et al. 2022). */
  readonly topPDecay?: number;
  /** topP does not fall below it, > 0 to 1; default 1e-6. */
  readonly topPMin?: number;
  /** After this token topP begins anew. */
  readonly topPResetIds?: number;
  /** Sample among tokens at least so many times as likely as the likeliest, from 0 to 1; default 0: all. */
  readonly minP?: number;
  /** Integer from 0 to 2^64 - 1; the same seed gives the same tokens in any batch. Default: drawn anew for each request. */
  readonly seed?: number | bigint;

  /** Divides positive and multiplies negative logits of tokens in prompt and output (Keskar et al. 2019), > 0; default 1. */
  readonly repetitionPenalty?: number;
  /** Subtracted once from the logits of tokens that occur in prompt or output; default 0. */
  readonly presencePenalty?: number;
  /** Subtracted for each occurrence of a token in prompt and output; default 0. */
  readonly frequencyPenalty?: number;
  /** So many tokens at the prompt's beginning do not count for presence and frequency penalties, ≥ 0; default 0. */
  readonly promptIgnoreLength?: number;
  /** No n-gram of this size occurs twice in prompt and output, ≥ 0; default 0: off. */
  readonly noRepeatNgramSize?: number;
  /** A grammar that the output keeps to. Without `logprobs`, the cumulative log-probability is then that among the allowed tokens. */
  readonly guidedDecoding?: GuidedDecodingParams;
  /** Functions that change each row of logits before anything else does, in the caller's thread. What one throws ends the request. */
  readonly logitsProcessor?: UserLogitsProcessor | readonly UserLogitsProcessor[];
  /** Give this request's rows to the `batchedLogitsProcessor` of the LLM or executor; default false. */
  readonly applyBatchedLogitsProcessor?: boolean;
  /** Added to the logits; finite or -Infinity. */
  readonly embeddingBias?: EmbeddingBias;

  /** Texts that are never generated. Need a tokenizer: the LLM turns them into `badWords`. */
  readonly bad?: string | readonly string[];
  /** Tokens that are never generated. */
  readonly badTokenIds?: readonly number[];
  /** Token sequences that are never generated. */
  readonly badWords?: readonly (readonly number[])[];
  /** Texts that end the generation. Need a tokenizer: the LLM watches for them. */
  readonly stop?: string | readonly string[];
  /** Tokens that end the generation. */
  readonly stopTokenIds?: readonly number[];
  /** Token sequences that end the generation. */
  readonly stopWords?: readonly (readonly number[])[];
  /** Whether what stopped the generation (stop text, token or word) stays in the output; default false. */
  readonly includeStopStrInOutput?: boolean;
  /** The token that ends a sequence; it stays in the output's token ids. The LLM fills in the model's. */
  readonly endId?: number;
  /** Kept for TensorRT-LLM's sake: nothing is padded. */
  readonly padId?: number;
  /** Generate on after `endId`; default false. */
  readonly ignoreEos?: boolean;

  /** Log-probabilities of so many likeliest tokens besides the chosen one for each output token, ≥ 0; default: none at all. */
  readonly logprobs?: number;
  /** The same for each token of the prompt. */
  readonly promptLogprobs?: number;
  /** Return the prompt's logits, [promptLength, vocabSize]; default false. */
  readonly returnContextLogits?: boolean;
  /** Return the output's logits as the model computed them, [tokens, vocabSize]; default false. */
  readonly returnGenerationLogits?: boolean;
  /** False: output token ids begin with the prompt's; default true. */
  readonly excludeInputFromOutput?: boolean;
  /** Return when the request was scheduled, saw its first token and ended; default false. */
  readonly returnPerfMetrics?: boolean;

  /** Use only the last so many tokens of the prompt, ≥ 1. */
  readonly truncatePromptTokens?: number;
  /** Text options, which the LLM reads: default true. */
  readonly detokenize?: boolean;
  readonly addSpecialTokens?: boolean;
  readonly skipSpecialTokens?: boolean;
  readonly spacesBetweenSpecialTokens?: boolean;

  /** Search the `n` best sequences with `bestOf` beams (up to 16) instead of sampling; default false. Streaming gives what all hypotheses have in common. */
  readonly useBeamSearch?: boolean;
  /** Beams after the first, second, … token, the last one from there on; `bestOf` is the greatest. Default: `bestOf` after each. */
  readonly beamWidthArray?: readonly number[];
  /** Favours continuations of the lower beams: added to their score times the rank of the beam; default 0. */
  readonly beamSearchDiversityRate?: number;
  /** Hypotheses are compared by sum of log-probabilities / length ^ lengthPenalty; default 0. */
  readonly lengthPenalty?: number;
  /** 1: end when `bestOf` hypotheses are finished. 0: also when a better one is unlikely. Other: when none can be better. Default 1. */
  readonly earlyStopping?: number;

  // Known, not built yet: refused unless at their neutral value.
  readonly lookaheadConfig?: unknown;
  readonly additionalModelOutputs?: readonly string[];
  readonly returnEncoderOutput?: boolean;
}

/** What the executor runs: checked, defaults filled in, plain data that crosses a thread. */
export interface DecodingParams {
  readonly maxTokens: number;
  readonly minTokens: number;
  /** Sequences returned and sequences generated. */
  readonly n: number;
  readonly bestOf: number;
  /** Set: beam search with `bestOf` beams. */
  readonly beam: BeamParams | undefined;
  /** 0 = greedy. */
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly topPDecay: number;
  readonly topPMin: number;
  readonly topPResetIds: number | undefined;
  readonly minP: number;
  /** Who changes the logits in the caller's thread. */
  readonly guidedDecoding: GuidedDecodingParams | undefined;
  readonly userProcessor: 'own' | 'batched' | undefined;
  /** undefined: the executor draws one. */
  readonly seed: bigint | undefined;
  readonly repetitionPenalty: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly promptIgnoreLength: number;
  readonly noRepeatNgramSize: number;
  readonly embeddingBias: ReadonlyMap<number, number> | Float32Array | undefined;
  /** Token sequences, `badTokenIds` among them. */
  readonly badWords: readonly (readonly number[])[];
  readonly stopTokenIds: readonly number[];
  readonly stopWords: readonly (readonly number[])[];
  readonly includeStopStrInOutput: boolean;
  /** undefined also when `ignoreEos` is set. */
  readonly endId: number | undefined;
  readonly logprobs: number | undefined;
  readonly promptLogprobs: number | undefined;
  readonly returnContextLogits: boolean;
  readonly returnGenerationLogits: boolean;
  readonly excludeInputFromOutput: boolean;
  readonly returnPerfMetrics: boolean;
  readonly truncatePromptTokens: number | undefined;
}
