// The beams of a request as the scheduler sees them: sequences that are computed together, share blocks, and take each other's place.
import type { BlockManager } from '../kv/block-manager.ts';
import { BlockTable, outOfWindow } from '../kv/block-table.ts';
import type { Sequence } from './request.ts';

export function isBeam({ request }: Sequence): boolean {
  return request.beams !== undefined;
}

/** Places in the batch that a sequence stands for: the first beam for all of them, which have to find room when the prompt is computed. */
export function places({ request, index }: Sequence): number {
  if (request.beams === undefined) return 1;
  return index === 0 ? request.sequences.length : 0;
}

/** Blocks that the beams of a request take at their greatest length. */
export function beamsClaim({ layout }: BlockManager, { promptLength, maxCached, request }: Sequence): number {
  return layout.blocksOfBeams(promptLength, maxCached, request.sequences.length);
}

/** Different blocks that beams hold. */
export function numHeld(beams: readonly Sequence[]): number {
  const blocks = new Set<number>();
  for (const { table } of beams)
    for (let at = 0; at < table.numBlocks * table.numGroups; at++)
      if (table.ids[at] !== outOfWindow) blocks.add(table.ids[at]!);
  return blocks.size;
}

/** Free blocks that it takes to grow each of these beams by one token: of those that share their last block the last one writes into it. */
export function beamsNeed(blocks: BlockManager, beams: readonly Sequence[]): number {
  const sharers = new Map<number, number>();
  let needed = 0;
  for (const { table } of beams) {
    needed += blocks.needed(table, table.numTokens + 1);
    if (!blocks.sharesLastBlock(table)) continue;
    const last = table.block(table.numBlocks - 1);
    sharers.set(last, (sharers.get(last) ?? 0) + 1);
  }
  for (const [block, count] of sharers)
    if (blocks.references(block as never) === count) needed -= blocks.layout.numGroups;
  return needed;
}

/** Turns beams into their continuations: tokens and blocks of sequence i become those of the one it comes from, and its new token. All sequences, for whoever keeps count of them. */
export function branch(
  blocks: BlockManager,
  sequences: readonly Sequence[],
  next: readonly { readonly from: number; readonly token: number }[],
): readonly Sequence[] {
  const kept = new Set<number>();
  const states = next.map(({ from }) => {
    const { tokens, numTokens, table, keys } = sequences[from]!;
    // The first one to go on from a beam takes what that had; the others copy.
    if (kept.has(from)) return { tokens: tokens.slice(), numTokens, table: blocks.fork(table), keys: keys.clone() };
    kept.add(from);
    return { tokens, numTokens, table, keys };
  });
  sequences.forEach((sequence, index) => {
    if (!kept.has(index)) blocks.free(sequence.table);
    sequence.table = new BlockTable(blocks.layout.numGroups);
  });
  states.forEach((state, index) => {
    const sequence = sequences[index]!;
    Object.assign(sequence, state);
    sequence.append(next[index]!.token);
  });
  return sequences;
}
