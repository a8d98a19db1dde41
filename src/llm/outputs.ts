// What a generation gives back, in the words of TensorRT-LLM's LLM API (tensorrt_llm.llmapi.RequestOutput and CompletionOutput), in camelCase.

/** A dense row-major tensor of logits. */
export interface Logits {
  readonly data: Float32Array;
  /** Rows × vocabulary: `[tokens, vocabSize]`. */
  readonly shape: readonly [number, number];
}

/** The log probability (natural logarithm) of one token at one position. */
export interface Logprob {
  readonly logprob: number;
  /** The token's place among all tokens by probability at this position, 1 for the most likely. */
  readonly rank?: number;
}

/** For every position, the asked-for most likely tokens and the one that was chosen, by token id. */
export type TokenLogprobs = readonly ReadonlyMap<number, Logprob>[];

/**
 * Why a sequence ended: `stop` at an end token, a stop token or a stop string; `length` at `maxTokens` or `maxSeqLen`; `timeout`; `cancelled` by its
 * AbortSignal. Null while it is still running.
 */
export type FinishReason = 'stop' | 'length' | 'timeout' | 'cancelled' | null;

/** One generated sequence of a request. */
export interface CompletionOutput {
  /** Its place in `RequestOutput.outputs`. */
  readonly index: number;
  /** All text so far, without what follows a stop string; empty when the engine runs without a tokenizer. */
  readonly text: string;
  /** All generated token ids so far. */
  readonly tokenIds: readonly number[];
  /** Sum of the log probabilities of the generated tokens; null unless they were computed. */
  readonly cumulativeLogprob: number | null;
  /** One entry a generated token; with `logprobs` of the sampling parameters. */
  readonly logprobs?: TokenLogprobs;
  /** `[generated tokens, vocabSize]`; with `returnGenerationLogits`. */
  readonly generationLogits?: Logits;
  readonly finishReason: FinishReason;
  /** The stop string or stop token id that ended it; null for an end token or any other reason. */
  readonly stopReason: number | string | null;
}

/** The result of one request, whole or (streaming) so far. */
export interface RequestOutput {
  readonly requestId: number;
  /** The prompt as text, a chat already rendered; null when the request came as token ids. */
  readonly prompt: string | null;
  readonly promptTokenIds: readonly number[];
  /** True when every output has ended; no further output of this request follows. */
  readonly finished: boolean;
  /** In the last output: prompt tokens that were not computed because the KV cache held them. */
  readonly cachedTokens?: number;
  /** `[prompt tokens, vocabSize]`; with `returnContextLogits`. */
  readonly contextLogits?: Logits;
  /** One entry a prompt token, the first empty since nothing comes before it; with `promptLogprobs`. */
  readonly promptLogprobs?: TokenLogprobs;
  /** `n` sequences; the best ones first when `bestOf` or beams chose among more. */
  readonly outputs: readonly CompletionOutput[];
}

/** One output of a stream: everything so far, and what is new since the last one. */
export interface StreamedCompletionOutput extends CompletionOutput {
  /** Text since the last output of the stream; it never ends inside a character. Often empty. */
  readonly textDelta: string;
  /** Token ids since the last output of the stream. */
  readonly tokenIdsDelta: readonly number[];
}

/** What `generateAsync` yields. The last one of a request has `finished: true`. */
export interface StreamedRequestOutput extends RequestOutput {
  readonly outputs: readonly StreamedCompletionOutput[];
  /** The `textDelta` of `outputs[0]`, for the common case of one sequence. */
  readonly textDelta: string;
}
