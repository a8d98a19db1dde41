// How sequences lie in the cache. Layers that see the same positions form a group with a table of its own; all groups draw their blocks from one pool, since every block has the size
// of one layer of each group. A group with a window gives blocks back that no later token sees, but for those of the first tokens that it keeps (attention sinks).
import type { CacheGroup, SessionLimits } from '../session/batch.ts';

/** What a layout follows from. */
export type LayoutLimits = Pick<SessionLimits, 'tokensPerBlock' | 'cacheGroups'> & Partial<SessionLimits>;

const everything: readonly CacheGroup[] = [{}];

export class CacheLayout {
  readonly tokensPerBlock: number;
  readonly groups: readonly CacheGroup[];
  /** Groups without a window. */
  readonly numFull: number;
  /** Groups with one. */
  readonly windowed: readonly number[];
  readonly #maxStep: number;

  /** `maxStep`: tokens of a sequence in one step at most. */
  constructor({ tokensPerBlock, cacheGroups = everything, maxNumTokens = 1 }: LayoutLimits, maxStep = maxNumTokens) {
    this.tokensPerBlock = tokensPerBlock;
    this.groups = cacheGroups;
    this.windowed = cacheGroups.flatMap(({ window }, group) => (window === undefined ? [] : [group]));
    this.numFull = cacheGroups.length - this.windowed.length;
    this.#maxStep = maxStep;
  }

  get numGroups(): number {
    return this.groups.length;
  }

  isFull(group: number): boolean {
    return this.groups[group]!.window === undefined;
  }

  /** Blocks that `numTokens` tokens take in one group. */
  blocksFor(numTokens: number): number {
    return Math.ceil(numTokens / this.tokensPerBlock);
  }

  /** Blocks at the beginning that a group with a window keeps. */
  sinkBlocks(group: number): number {
    return this.blocksFor(this.groups[group]!.sinkTokens ?? 0);
  }

  /** The first block, sinks aside, that a token at `position` or later sees. */
  firstBlock(group: number, position: number): number {
    const { window } = this.groups[group]!;
    return window === undefined ? 0 : Math.floor(Math.max(0, position - window + 1) / this.tokensPerBlock);
  }

  /** Blocks that a sequence of up to `length` tokens holds at once in a group, at most. */
  most(group: number, length: number): number {
    const { window } = this.groups[group]!;
    const all = this.blocksFor(length);
    // A step's tokens and the window before them, wherever that begins in a block; and the last full block, which the next one is known by.
    const seen = window === undefined ? all : this.blocksFor(window - 1 + this.#maxStep) + 2;
    return Math.min(all, this.sinkBlocks(group) + seen);
  }

  /** The same over the groups with windows. */
  mostInWindows(length: number): number {
    let sum = 0;
    for (const group of this.windowed) sum += this.most(group, length);
    return sum;
  }

  /** The same over all groups. */
  blocksOf(length: number): number {
    return this.numFull * this.blocksFor(length) + this.mostInWindows(length);
  }

  /** Blocks of `width` beams that grow from a prompt to `length` tokens and share no more than the prompt's full blocks. */
  blocksOfBeams(promptLength: number, length: number, width: number): number {
    const shared = Math.floor(promptLength / this.tokensPerBlock);
    const full = shared + width * (this.blocksFor(length) - shared);
    return this.groups.reduce((sum, _, group) => sum + Math.min(full, width * this.most(group, length)), 0);
  }
}
