// What a request gives back: deltas while it runs, a whole result at its end.
import type { TokenLogprobs } from '../decode/logprobs.ts';
import type { FinishReason, StopReason } from '../decode/stop.ts';

/** Rows of logits, row-major float32. */
export interface LogitsTensor {
  readonly data: Float32Array;
  /** [rows, vocabSize] */
  readonly shape: readonly [number, number];
}

/** What is new of one sequence. */
export interface SequenceDelta {
  /** From 0 to bestOf - 1. */
  readonly index: number;
  /** The tokens that are new. */
  readonly tokenIds: readonly number[];
  /** One entry a new token, when `logprobs` was asked for. */
  readonly logprobs?: readonly TokenLogprobs[];
  /** One row a new token, when `returnGenerationLogits` was set. */
  readonly generationLogits?: LogitsTensor;
  /** Sum of the log-probabilities of all tokens so far. */
  readonly cumulativeLogprob: number;
  /** Set in the sequence's last delta. */
  readonly finishReason?: FinishReason;
  readonly stopReason?: StopReason;
}

/** When things happened to a request, milliseconds since the epoch. */
export interface RequestPerfMetrics {
  readonly arrivalTime: number;
  readonly firstScheduledTime?: number;
  readonly firstTokenTime?: number;
  readonly lastTokenTime: number;
  /** Steps of the engine in which the first and the last token came. */
  readonly firstIter?: number;
  readonly lastIter: number;
  /** How often one of its sequences gave its blocks back and was computed again. */
  readonly numPreemptions: number;
}

/** What is new of a request since the last response. */
export interface Response {
  readonly requestId: number;
  /** The sequences of which something is new. */
  readonly outputs: readonly SequenceDelta[];
  /** [promptLength, vocabSize], once, when `returnContextLogits` was set. */
  readonly contextLogits?: LogitsTensor;
  /** One entry a prompt token, once, when `promptLogprobs` was asked for; the first one is empty, for nothing comes before it. */
  readonly promptLogprobs?: readonly TokenLogprobs[];
  /** True in the last response of the request. */
  readonly finished: boolean;
  /** In the last response: prompt tokens that were not computed because the cache held them. */
  readonly cachedTokens?: number;
  /** In the last response, when `returnPerfMetrics` was set. */
  readonly perfMetrics?: RequestPerfMetrics;
}

/** A finished sequence of a request. */
export interface SequenceOutput {
  readonly index: number;
  readonly tokenIds: readonly number[];
  readonly logprobs?: readonly TokenLogprobs[];
  readonly generationLogits?: LogitsTensor;
  readonly cumulativeLogprob: number;
  readonly finishReason: FinishReason;
  readonly stopReason: StopReason;
}

/** A finished request. */
export interface Result {
  readonly requestId: number;
  readonly promptTokenIds: Int32Array;
  /** The n sequences: in the order of their indices, or the best of `bestOf`, best first, when that is greater. */
  readonly outputs: readonly SequenceOutput[];
  readonly contextLogits?: LogitsTensor;
  readonly promptLogprobs?: readonly TokenLogprobs[];
  /** Prompt tokens that were not computed because the cache held them. */
  readonly cachedTokens: number;
  readonly perfMetrics?: RequestPerfMetrics;
}

/** The `n` sequences of greatest cumulative log-probability, best first, numbered anew; all of them in their order when there are no more than `n`. */
export function bestSequences<Output extends { readonly index: number; readonly cumulativeLogprob: number | null }>(
  outputs: readonly Output[],
  n: number,
): Output[] {
  if (outputs.length <= n) return [...outputs];
  return [...outputs]
    .sort((a, b) => (b.cumulativeLogprob ?? 0) - (a.cumulativeLogprob ?? 0) || a.index - b.index)
    .slice(0, n)
    .map((output, index) => ({ ...output, index }));
}

/** Rows of several tensors in one. */
export function concatLogits(parts: readonly LogitsTensor[]): LogitsTensor {
  if (parts.length === 1) return parts[0]!;
  const rows = parts.reduce((sum, { shape }) => sum + shape[0], 0);
  const width = parts[0]?.shape[1] ?? 0;
  const data = new Float32Array(rows * width);
  let at = 0;
  for (const part of parts) {
    data.set(part.data, at);
    at += part.data.length;
  }
  return { data, shape: [rows, width] };
}

/** Two deltas of a sequence, one after the other, as one. */
export function mergeDeltas(first: SequenceDelta, second: SequenceDelta): SequenceDelta {
  const logits = [first.generationLogits, second.generationLogits].filter((part) => part !== undefined);
  return {
    ...first,
    ...second,
    tokenIds: [...first.tokenIds, ...second.tokenIds],
    ...(first.logprobs || second.logprobs ? { logprobs: [...(first.logprobs ?? []), ...(second.logprobs ?? [])] } : {}),
    ...(logits.length > 0 ? { generationLogits: concatLogits(logits) } : {}),
  };
}

/** Two responses of a request, one after the other, as one. */
export function mergeResponses(first: Response, second: Response): Response {
  const outputs = new Map(first.outputs.map((delta) => [delta.index, delta]));
  for (const delta of second.outputs) {
    const earlier = outputs.get(delta.index);
    outputs.set(delta.index, earlier === undefined ? delta : mergeDeltas(earlier, delta));
  }
  return { ...first, ...second, outputs: [...outputs.values()] };
}
