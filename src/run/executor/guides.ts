// Grammars of a step's requests: what each allows next is found out while the device computes.
import { RequestError } from '../../base/errors.ts';
import type { GuideMaker } from '../decode/guided.ts';
import type { StepPlan } from './plan.ts';
import type { Request, Sequence } from './request.ts';

const nothing: ReadonlyMap<Request, unknown> = new Map();

/** Prepares the guides of all sequences that get a token in this step; the requests whose grammar is none, and why. Never rejects. */
export async function prepareGuides(
  plan: StepPlan,
  guides: GuideMaker | undefined,
): Promise<ReadonlyMap<Request, unknown>> {
  const guided = plan.entries.flatMap(({ samples }) =>
    samples.filter(({ request }) => request.data.params.guidedDecoding !== undefined),
  );
  if (guided.length === 0) return nothing;
  const failures = new Map<Request, unknown>();
  for (const sequence of guided) {
    try {
      await prepare(sequence, guides);
    } catch (error) {
      failures.set(sequence.request, error);
    }
  }
  return failures;
}

async function prepare(sequence: Sequence, guides: GuideMaker | undefined): Promise<void> {
  const { guidedDecoding, endId, stopTokenIds } = sequence.request.data.params;
  if (sequence.guide === undefined) {
    if (guides === undefined) throw new RequestError('guided decoding is not set up');
    const ends = [...(endId === undefined ? [] : [endId]), ...stopTokenIds];
    sequence.guide = await guides.guide(guidedDecoding!, ends);
  }
  await sequence.guide.prepare();
}
