// What the cache holds of a sequence's beginning.
import type { BlockKeys } from './block-keys.ts';
import type { CachedBlock, ContentTree } from './content.ts';
import type { CacheLayout } from './layout.ts';
import { nowhere } from './place.ts';
import type { BlockRetention } from './retention.ts';

/** A sequence as the cache sees it. */
export interface Content {
  readonly tokens: Int32Array;
  readonly keys: BlockKeys;
  /** What was said of the block whose first token is at `position`. */
  retention?(position: number): BlockRetention | undefined;
}

/** What the cache holds of a sequence's beginning. */
export interface PrefixMatch {
  readonly blocks: readonly CachedBlock[];
  /** The block that begins like the sequence's next one. */
  readonly partial: { readonly source: CachedBlock; readonly numTokens: number } | undefined;
  readonly numTokens: number;
}

export const noMatch: PrefixMatch = { blocks: [], partial: undefined, numTokens: 0 };

/** The first block, sinks aside, that a sequence which goes on after `count` known blocks holds in a group: the last of them always, since the next one is known by it. */
export function firstHeld(layout: CacheLayout, group: number, count: number): number {
  return Math.min(layout.firstBlock(group, count * layout.tokensPerBlock), Math.max(0, count - 1));
}

/** Whether such a sequence holds block `index` in a group. */
export function isHeld(layout: CacheLayout, group: number, index: number, count: number): boolean {
  return layout.isFull(group) || index < layout.sinkBlocks(group) || index >= firstHeld(layout, group, count);
}

/** What the tree has of the first `limit` tokens: as long a beginning as all groups have what a token after it sees. */
export function matchPrefix(
  tree: ContentTree,
  layout: CacheLayout,
  { tokens, keys }: Content,
  limit: number,
  partial: boolean,
): PrefixMatch {
  const root = tree.findRoot(keys.scope);
  if (root === undefined) return noMatch;
  const size = layout.tokensPerBlock;
  const blocks: CachedBlock[] = [];
  let node = root;
  while ((blocks.length + 1) * size <= limit) {
    const child = tree.child(node, keys.at(blocks.length, tokens), tokens, blocks.length * size);
    if (child === undefined || child === 'taken') break;
    blocks.push(child);
    node = child;
  }
  if (layout.windowed.length > 0) blocks.length = usable(layout, blocks);
  node = blocks.at(-1) ?? root;
  const start = blocks.length * size;
  const next = partial && start < limit ? tree.closest(node, tokens, start, Math.min(limit, start + size)) : undefined;
  // A part is copied in all groups or not at all.
  const part = next?.source.places.includes(nowhere) ? undefined : next;
  return { blocks, partial: part, numTokens: start + (part?.numTokens ?? 0) };
}

/** How many of these blocks can be gone on from: in each group the window before the next token, and the sinks, are there. */
function usable(layout: CacheLayout, blocks: readonly CachedBlock[]): number {
  let best = 0;
  /** For each group with a window: the first of the unbroken blocks up to here, and whether the sinks are whole. */
  const unbroken = layout.windowed.map(() => 0);
  const sinks = layout.windowed.map(() => true);
  for (let i = 0; i < blocks.length; i++) {
    layout.windowed.forEach((group, k) => {
      if (blocks[i]!.places[group] !== nowhere) return;
      unbroken[k] = i + 1;
      if (i < layout.sinkBlocks(group)) sinks[k] = false;
    });
    if (layout.windowed.every((group, k) => sinks[k]! && unbroken[k]! <= firstHeld(layout, group, i + 1))) best = i + 1;
  }
  return best;
}
