// Grammars of a step's requests: what each allows next is found out while the device computes, and what can only follow is proposed to be computed at once.
import { setImmediate as nextTurn } from 'node:timers/promises';
import { RequestError } from '../../base/errors.ts';
import type { GuideMaker } from '../decode/guided.ts';
import type { TokenHistory } from '../decode/logits.ts';
import type { Drafter } from '../decode/ngram.ts';
import type { StepPlan } from './plan.ts';
import type { Request, Sequence } from './request.ts';

/** Tokens proposed at once, at most. */
const longestJump = 16;
const nothing: ReadonlyMap<Request, unknown> = new Map();

/** Prepares the guides of all sequences that get a token in this step; the requests whose grammar is none, and why. Never rejects. */
export async function prepareGuides(
  plan: StepPlan,
  guides: GuideMaker | undefined,
): Promise<ReadonlyMap<Request, unknown>> {
  const guided = plan.entries.flatMap(({ samples, numDrafts }) =>
    samples.flatMap((sequence) => (sequence.guided ? [{ sequence, numDrafts }] : [])),
  );
  if (guided.length === 0) return nothing;
  // The device begins first.
  await nextTurn();
  const failures = new Map<Request, unknown>();
  for (const { sequence, numDrafts } of guided) {
    try {
      await prepare(sequence, numDrafts, guides);
    } catch (error) {
      failures.set(sequence.request, error);
    }
  }
  return failures;
}

async function prepare(sequence: Sequence, numDrafts: number, guides: GuideMaker | undefined): Promise<void> {
  const { guidedDecoding, endId, stopTokenIds } = sequence.request.data.params;
  if (sequence.guide === undefined) {
    if (guides === undefined) throw new RequestError('guided decoding is not set up');
    const ends = [...(endId === undefined ? [] : [endId]), ...stopTokenIds];
    sequence.guide = await guides.guide(guidedDecoding!, ends);
  }
  const { tokens, numTokens } = sequence;
  await sequence.guide.prepare(tokens.subarray(numTokens, numTokens + numDrafts));
}

/** Proposes what a sequence's grammar leaves no choice about: the step checks it like any proposal, so that the tokens are those that would have come one by one. */
export class JumpAhead implements Drafter {
  readonly kind = 'forced';
  readonly pauses = false;
  readonly #sequence: Sequence;

  constructor(sequence: Sequence) {
    this.#sequence = sequence;
  }

  propose(_history: TokenHistory, most: number): number[] | undefined {
    const tokens = this.#sequence.guide?.forced(Math.min(most, longestJump)) ?? [];
    return tokens.length === 0 ? undefined : tokens;
  }

  learn(): void {
    // The guide sees for itself which tokens came.
  }
}
