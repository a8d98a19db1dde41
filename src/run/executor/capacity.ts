// What the cache has room for: the blocks that sequences may claim under the policy, so that those who join never take what others were promised.
import type { BlockManager } from '../kv/block-manager.ts';
import type { PrefixMatch } from '../kv/matching.ts';
import { beamsClaim, beamsNeed, isBeam, numHeld, places } from './beam-group.ts';
import type { Sequence } from './request.ts';

/**
 * When a waiting sequence may join (TensorRT-LLM's capacity scheduler policies):
 * 'guaranteed_no_evict': when the KV cache holds it and all that run up to their greatest lengths; nothing is ever preempted.
 * 'max_utilization': when the KV cache holds what it has now; when blocks run out later, the lowest in rank gives its blocks back and computes them again.
 * 'static_batch': as guaranteed_no_evict, and only when nothing runs.
 */
export type CapacitySchedulerPolicy = 'guaranteed_no_evict' | 'max_utilization' | 'static_batch';

export class Capacity {
  readonly #blocks: BlockManager;
  readonly #mayEvict: boolean;
  readonly #running: readonly Sequence[];

  /** `running`: the sequences that hold blocks, whoever they are at the time. */
  constructor(blocks: BlockManager, policy: CapacitySchedulerPolicy, running: readonly Sequence[]) {
    this.#blocks = blocks;
    this.#mayEvict = policy === 'max_utilization';
    this.#running = running;
  }

  /** Blocks that the running sequences, `except` one, may still take. */
  reserved(except?: Sequence): number {
    const { layout } = this.#blocks;
    const windows = layout.windowed.length > 0;
    let sum = 0;
    let inWindows = 0;
    for (let i = 0; i < this.#running.length; i++) {
      const sequence = this.#running[i]!;
      if (sequence === except) continue;
      if (isBeam(sequence)) sum += this.#beamsReserved(sequence);
      else {
        const claim = this.#claim(sequence);
        sum += this.#blocks.neededInFull(sequence.table, claim);
        if (windows) inWindows += layout.mostInWindows(claim);
      }
    }
    // Who shares blocks of a window may come to hold as many of its own: all that are held are counted together.
    return windows ? sum + Math.max(0, inWindows - this.#blocks.numHeldInWindows) : sum;
  }

  /** What `reserved` is now that `sequence`, the only one of its request, runs too; undefined: it has to be counted anew. */
  reservedWith(reserved: number, sequence: Sequence): number | undefined {
    if (this.#blocks.layout.windowed.length > 0 || isBeam(sequence)) return undefined;
    return reserved + this.#blocks.neededInFull(sequence.table, this.#claim(sequence));
  }

  /** What of a waiting sequence's tokens is in the cache, when it and all that the sequence may claim besides fit `numFree` blocks. */
  affordable(sequence: Sequence, numFree: number): PrefixMatch | undefined {
    const blocks = this.#blocks;
    const claim = isBeam(sequence) ? sequence.numTokens : this.#claim(sequence);
    // What beams take besides the prompt.
    if (isBeam(sequence))
      numFree -= this.#mayEvict
        ? places(sequence) * blocks.layout.numGroups
        : beamsClaim(blocks, sequence) - blocks.layout.blocksOf(sequence.numTokens);
    const match = blocks.match(sequence, sequence.numReusable);
    if (blocks.neededAfter(match, claim) <= numFree) return match;
    // A part of a block needs one more block while it is copied.
    const whole = { ...match, partial: undefined, numTokens: match.blocks.length * blocks.tokensPerBlock };
    return blocks.neededAfter(whole, claim) <= numFree ? whole : undefined;
  }

  /** Whether `numForks` more sequences have room to go on from the prompt that the next `count` tokens of `sequence` complete. */
  mayFork(sequence: Sequence, count: number, numForks: number): boolean {
    const blocks = this.#blocks;
    const { numGroups, numFull } = blocks.layout;
    const length = sequence.numCached + count;
    const free = blocks.freeNumBlocks - blocks.needed(sequence.table, length);
    if (this.#mayEvict) return free >= numForks * numGroups;
    const partial = length % blocks.tokensPerBlock === 0 ? 0 : 1;
    const { maxCached } = sequence;
    const each = numFull * (blocks.blocksFor(maxCached) - blocks.blocksFor(length) + partial);
    return free >= this.reserved(sequence) + (each + blocks.layout.mostInWindows(maxCached)) * (numForks + 1);
  }

  /** Tokens in the cache that the policy grants a sequence before others may join: all it can ever have, or what it has and one more. */
  #claim(sequence: Sequence): number {
    return this.#mayEvict ? Math.min(sequence.numTokens + 1, sequence.maxCached) : sequence.maxCached;
  }

  /** Blocks that the beams of a request may still take; counted with the first one. */
  #beamsReserved({ index, request }: Sequence): number {
    if (index > 0) return 0;
    const beams = request.sequences.filter(({ status }) => status === 'running');
    if (this.#mayEvict)
      return request.promptDone ? beamsNeed(this.#blocks, beams) : places(beams[0]!) * this.#blocks.layout.numGroups;
    return beamsClaim(this.#blocks, beams[0]!) - numHeld(beams);
  }
}
