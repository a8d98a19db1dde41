// How a step's tokens are shared among the sequences in their context phase.

/**
 * TensorRT-LLM's context chunking policies. 'first_come_first_served': whoever is first in rank computes as much of its context as fits, the next one what is left.
 * 'equal_progress': all of them compute about as many tokens.
 */
export type ContextChunkingPolicy = 'first_come_first_served' | 'equal_progress';

/** The greatest number of tokens, a multiple of `unit`, that all may take at most so that `tokens` suffice; one unit at least. `demands`: what each would take. */
export function equalShare(tokens: number, demands: readonly number[], unit: number): number {
  const ascending = [...demands].sort((a, b) => a - b);
  let left = tokens;
  let level = tokens;
  for (let i = 0; i < ascending.length; i++) {
    level = Math.floor(left / (ascending.length - i));
    if (ascending[i]! > level) break;
    left -= ascending[i]!;
    level = left;
  }
  return Math.max(unit, Math.floor(level / unit) * unit);
}
