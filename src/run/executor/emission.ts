// From sampled tokens to responses: log-probabilities, stop rules, tokens held back while they may begin a stop word. One object a step.
import { ExecutorError } from '../../base/errors.ts';
import type { TokenLogprobs } from '../decode/logprobs.ts';
import { checkStop, heldBack, type Stop } from '../decode/stop.ts';
import type { HostLogits } from './host-logits.ts';
import {
  concatLogits,
  type LogitsTensor,
  mergeDeltas,
  type RequestPerfMetrics,
  type Response,
  type SequenceDelta,
} from './outputs.ts';
import type { ScheduledSequence } from './plan.ts';
import type { PendingToken, Request, Sequence } from './request.ts';

/** What a step puts out for one request. */
export type Update = { readonly response: Response } | { readonly requestId: number; readonly error: unknown };

/** Prompt rows gathered over the chunks of a prompt, until it is whole. */
export interface PromptGathering {
  readonly logits: LogitsTensor[];
  readonly logprobs: TokenLogprobs[];
}

/** Reads what `sequence` gets of a row: throws ExecutorError when no token could be sampled. */
export function pendingToken(
  sequence: Sequence,
  token: number,
  logprob: number,
  row: number,
  host: HostLogits,
): PendingToken {
  const { logprobs, returnGenerationLogits } = sequence.request.data.params;
  const raw = host.row(row);
  const entries = raw !== undefined && (logprobs !== undefined || sequence.processors.length > 0);
  const found = entries ? host.logprobs(row, token, logprobs ?? 0) : undefined;
  const own = found?.[0]?.logprob ?? logprob;
  if (Number.isNaN(logprob) || Number.isNaN(own)) throw nothingToSample();
  return {
    token,
    logprob: own,
    logprobs: logprobs === undefined ? undefined : found,
    logits: returnGenerationLogits ? host.copy(row, 1).data : undefined,
  };
}

/** The grammar's text is complete, and a token that ends a text followed, though the request ignores it. */
const grammarEnd: Stop = { finishReason: 'stop', stopReason: undefined, numDropped: 0 };

function nothingToSample(): ExecutorError {
  return new ExecutorError('no token can be sampled', {
    expected: 'at least one finite logit',
    got: 'only -Infinity or NaN from the model',
  });
}

/** Takes in a sampled token; the delta to be given out, and whether the sequence ends. */
export function acceptToken(
  sequence: Sequence,
  pending: PendingToken,
): { delta: SequenceDelta | undefined; stop: Stop | undefined } {
  const { params } = sequence.request.data;
  sequence.pending.push(pending);
  const stop = checkStop(sequence, params) ?? (sequence.guide?.terminated ? grammarEnd : undefined);
  const keep = stop === undefined ? heldBack(sequence, params) : stop.numDropped;
  const tokens = sequence.pending.splice(0, sequence.pending.length - keep);
  if (tokens.length === 0 && stop === undefined) return { delta: undefined, stop };
  return { delta: sequenceDelta(sequence, tokens, stop), stop };
}

/**
 * Takes in what was sampled for an entry of one sequence: its next token, and as many after that as were proposed rightly. The delta is undefined when nothing is given out yet.
 */
export function takeTokens(
  { sequence, numDrafts, firstSampleRow }: ScheduledSequence,
  tokens: Int32Array,
  logprobs: Float32Array,
  host: HostLogits,
): { delta: SequenceDelta | undefined; stop: Stop | undefined; numTaken: number } {
  let delta: SequenceDelta | undefined;
  for (let i = 0; ; i++) {
    const row = firstSampleRow + i;
    const token = tokens[row]!;
    const proposed = i < numDrafts && sequence.tokens[sequence.numTokens] === token;
    const pending = pendingToken(sequence, token, logprobs[row]!, row, host);
    sequence.append(token);
    sequence.guide?.accept(token);
    const accepted = acceptToken(sequence, pending);
    if (accepted.delta !== undefined) delta = delta === undefined ? accepted.delta : mergeDeltas(delta, accepted.delta);
    if (accepted.stop !== undefined || !proposed) return { delta, stop: accepted.stop, numTaken: i + 1 };
  }
}

/** The same for a sequence whose tokens only have to be counted and passed on. */
export function takePlainTokens(
  { sequence, numDrafts, firstSampleRow }: ScheduledSequence,
  tokens: Int32Array,
  logprobs: Float32Array,
): { delta: SequenceDelta; stop: Stop | undefined; numTaken: number } {
  const { endId, minTokens, maxTokens } = sequence.request.data.params;
  const tokenIds: number[] = [];
  for (let i = 0; ; i++) {
    const row = firstSampleRow + i;
    const token = tokens[row]!;
    const logprob = logprobs[row]!;
    if (Number.isNaN(logprob)) throw nothingToSample();
    const proposed = i < numDrafts && sequence.tokens[sequence.numTokens] === token;
    sequence.append(token);
    sequence.cumulativeLogprob += logprob;
    sequence.numEmitted++;
    tokenIds.push(token);
    const { numGenerated, cumulativeLogprob, index } = sequence;
    const ended = token === endId && numGenerated >= minTokens;
    if (ended || numGenerated >= maxTokens) {
      const finishReason = ended ? 'stop' : 'length';
      const delta = { index, tokenIds, cumulativeLogprob, finishReason, stopReason: undefined } as const;
      return { delta, stop: { finishReason, stopReason: undefined, numDropped: 0 }, numTaken: i + 1 };
    }
    if (!proposed) return { delta: { index, tokenIds, cumulativeLogprob }, stop: undefined, numTaken: i + 1 };
  }
}

/** The last delta of a sequence that is ended from outside: what was held back is given out. */
export function finalDelta(sequence: Sequence, stop: Stop): SequenceDelta {
  return sequenceDelta(sequence, sequence.pending.splice(0), stop);
}

function sequenceDelta(sequence: Sequence, tokens: readonly PendingToken[], stop: Stop | undefined): SequenceDelta {
  const { logprobs, returnGenerationLogits } = sequence.request.data.params;
  for (const { logprob } of tokens) sequence.cumulativeLogprob += logprob;
  sequence.numEmitted += tokens.length;
  return {
    index: sequence.index,
    tokenIds: tokens.map(({ token }) => token),
    ...(logprobs === undefined ? {} : { logprobs: tokens.map((pending) => pending.logprobs!) }),
    ...(returnGenerationLogits && tokens.length > 0
      ? { generationLogits: concatLogits(tokens.map(({ logits }) => ({ data: logits!, shape: [1, logits!.length] }))) }
      : {}),
    cumulativeLogprob: sequence.cumulativeLogprob,
    ...(stop === undefined ? {} : { finishReason: stop.finishReason, stopReason: stop.stopReason }),
  };
}

/** Gathers an entry's prompt rows; what belongs in the response once the prompt is whole. */
export function gatherPrompt(
  entry: ScheduledSequence,
  host: HostLogits,
  gathering: PromptGathering,
): Pick<Response, 'contextLogits' | 'promptLogprobs'> | undefined {
  const { sequence, promptFrom, promptTo, firstRow } = entry;
  if (promptTo === promptFrom) return undefined;
  const { returnContextLogits, promptLogprobs } = sequence.request.data.params;
  if (returnContextLogits) gathering.logits.push(host.copy(firstRow, promptTo - promptFrom));
  if (promptLogprobs !== undefined) {
    for (let position = promptFrom; position < Math.min(promptTo, sequence.promptLength - 1); position++)
      gathering.logprobs.push(
        host.logprobs(firstRow + position - promptFrom, sequence.tokens[position + 1]!, promptLogprobs),
      );
  }
  if (promptTo < sequence.promptLength) return undefined;
  return {
    ...(returnContextLogits ? { contextLogits: concatLogits(gathering.logits) } : {}),
    ...(promptLogprobs === undefined ? {} : { promptLogprobs: [[], ...gathering.logprobs] }),
  };
}

export function perfMetrics(request: Request, iter: number, time: number): RequestPerfMetrics {
  const { firstScheduledTime, firstTokenTime, firstIter, numPreemptions } = request;
  return {
    arrivalTime: request.data.arrivalTime,
    ...(firstScheduledTime === undefined ? {} : { firstScheduledTime }),
    ...(firstTokenTime === undefined ? {} : { firstTokenTime }),
    lastTokenTime: time,
    ...(firstIter === undefined ? {} : { firstIter }),
    lastIter: iter,
    numPreemptions,
  };
}
