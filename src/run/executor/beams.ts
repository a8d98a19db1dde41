// One step of a beam search: logits → scores → continuations → what is given out. While the search runs, only what all hypotheses have in common is given out, as output 0: that is
// the beginning of the best one, whichever it will be. At the end the n best follow whole.
import { RequestError } from '../../base/errors.ts';
import { logSoftmax } from '../../kernels/sample/reference.ts';
import { type BeamNode, type Continuation, commonNode, type Hypothesis, pathOf } from '../decode/beam-search.ts';
import { createLogitsProcessors } from '../decode/logits.ts';
import { checkStop, type FinishReason, heldBack, type Stop } from '../decode/stop.ts';
import { pendingToken } from './emission.ts';
import type { HostLogits } from './host-logits.ts';
import { concatLogits, type SequenceDelta } from './outputs.ts';
import type { ScheduledSequence } from './plan.ts';
import type { Beams, PendingToken, Request, Sequence } from './request.ts';

/** Takes in the logits of a request's beams, in the order of their entries; the continuations that go on, none when the search is over. */
export function advanceBeams(
  beams: Beams,
  entries: readonly ScheduledSequence[],
  host: HostLogits,
): readonly Continuation<PendingToken>[] {
  const scores = entries.map(({ sequence, firstSampleRow }) => {
    // As in transformers, processors see log-probabilities.
    const row = logSoftmax(host.changedRow(firstSampleRow));
    for (const process of createLogitsProcessors(sequence.request.data.params)) process(row, sequence);
    return row;
  });
  const continuations = beams.advance({
    scores,
    stop: (from, token) => stopOf(entries[from]!.sequence, token),
    extra: (from, token) => {
      const { sequence, firstSampleRow } = entries[from]!;
      return pendingToken(sequence, token, host.logprob(firstSampleRow, token), firstSampleRow, host);
    },
  });
  if (beams.ranking().length === 0)
    throw new RequestError('no token is left: biases, bad words or n-gram rules exclude them all');
  return continuations;
}

/** Whether a beam would end with `token`. */
function stopOf(sequence: Sequence, token: number): Stop | undefined {
  sequence.reserve(sequence.numTokens + 1);
  const { tokens, numTokens, promptLength } = sequence;
  tokens[numTokens] = token;
  return checkStop({ tokens, numTokens: numTokens + 1, promptLength }, sequence.request.data.params);
}

/** What is new of a request whose search goes on. */
export function commonDelta(request: Request, beams: Beams): SequenceDelta[] {
  const { running, finished } = beams;
  const common = commonNode([...running, ...finished.map(({ node }) => node)]);
  if (common === undefined) return [];
  // Tokens that may turn out to be a stop, or are one, are not given out yet.
  let length = common.length;
  for (const { node, stop } of finished) length = Math.min(length, node.length - stop!.numDropped);
  for (const sequence of request.sequences)
    if (sequence.status === 'running')
      length = Math.min(length, sequence.numGenerated - heldBack(sequence, request.data.params));
  return deltaOf(request, 0, common, length, undefined);
}

/** The n best hypotheses, whole; `reason`: the search was ended from outside. */
export function finalDeltas(request: Request, beams: Beams, reason?: FinishReason): SequenceDelta[] {
  const outside: Stop = { finishReason: reason ?? 'length', stopReason: undefined, numDropped: 0 };
  const best: readonly (Hypothesis<PendingToken> | undefined)[] = beams.ranking();
  return Array.from({ length: request.data.params.n }, (_, index) => {
    const stop = best[index]?.stop ?? outside;
    const node = best[index]?.node;
    return deltaOf(request, index, node, (node?.length ?? 0) - stop.numDropped, stop);
  }).flat();
}

/** Tokens of a hypothesis up to its `length` that were not given out as output `index` yet. */
function deltaOf(
  request: Request,
  index: number,
  node: BeamNode<PendingToken> | undefined,
  length: number,
  stop: Stop | undefined,
): SequenceDelta[] {
  const output = request.sequences[index]!;
  const path = pathOf(node, output.numEmitted).filter((each) => each.length <= length);
  if (path.length === 0 && stop === undefined) return [];
  const { logprobs, returnGenerationLogits } = request.data.params;
  const tokens = path.map(({ extra }) => extra);
  for (const { logprob } of tokens) output.cumulativeLogprob += logprob;
  output.numEmitted += tokens.length;
  return [
    {
      index,
      tokenIds: tokens.map(({ token }) => token),
      ...(logprobs === undefined ? {} : { logprobs: tokens.map((token) => token.logprobs!) }),
      ...(returnGenerationLogits && tokens.length > 0
        ? {
            generationLogits: concatLogits(tokens.map(({ logits }) => ({ data: logits!, shape: [1, logits!.length] }))),
          }
        : {}),
      cumulativeLogprob: output.cumulativeLogprob,
      ...(stop === undefined ? {} : { finishReason: stop.finishReason, stopReason: stop.stopReason }),
    },
  ];
}
