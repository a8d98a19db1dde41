// The blocks whose content is known, as a tree: a path from a root spells a prefix, a block a step. Each scope (salt, adapter) has a root of its own.
import { blockKey, scopeKey } from './block-keys.ts';
import { isOnDevice, nowhere } from './place.ts';
import { defaultPriority } from './retention.ts';

/** A stretch of tokens whose keys and values are known: a block in each group of layers. */
export class CachedBlock {
  /** Where they are, by group: see place.ts. */
  readonly places: number[];
  readonly key: number;
  /** Tokens that it holds: as many as a block has, or fewer where a sequence ended. */
  readonly numTokens: number;
  /** Where the tree keeps them. */
  readonly slot: number;
  /** undefined: it is a root, which has no blocks. */
  readonly parent: CachedBlock | undefined;
  priority = defaultPriority;
  durationMs: number | undefined;
  /** When the priority falls back to the default; milliseconds. */
  expires = Number.POSITIVE_INFINITY;
  /** Most blocks have one child or none: no map is made for those. */
  #only: CachedBlock | undefined;
  #children: Map<number, CachedBlock> | undefined;
  /** Children that are on the device, at least in part, in the groups that see everything. */
  numResidentChildren = 0;
  /** Its own blocks on the device in those groups. */
  numResident = 0;

  constructor(places: number[], key: number, numTokens: number, slot: number, parent: CachedBlock | undefined) {
    this.places = places;
    this.key = key;
    this.numTokens = numTokens;
    this.slot = slot;
    this.parent = parent;
  }

  get isLeaf(): boolean {
    return this.#only === undefined && (this.#children === undefined || this.#children.size === 0);
  }

  /** Whether any group still has it. */
  get isSomewhere(): boolean {
    return this.places.some((place) => place !== nowhere);
  }

  get isAllOnDevice(): boolean {
    return this.places.every(isOnDevice);
  }

  child(key: number): CachedBlock | undefined {
    return this.#children === undefined ? (this.#only?.key === key ? this.#only : undefined) : this.#children.get(key);
  }

  children(): Iterable<CachedBlock> {
    if (this.#children !== undefined) return this.#children.values();
    return this.#only === undefined ? [] : [this.#only];
  }

  add(child: CachedBlock): void {
    if (this.#children !== undefined) this.#children.set(child.key, child);
    else if (this.#only === undefined) this.#only = child;
    else {
      this.#children = new Map([
        [this.#only.key, this.#only],
        [child.key, child],
      ]);
      this.#only = undefined;
    }
  }

  remove(child: CachedBlock): void {
    if (this.#only === child) this.#only = undefined;
    else this.#children?.delete(child.key);
  }
}

export class ContentTree {
  readonly #roots = new Map<string, CachedBlock>();
  readonly #tokensPerBlock: number;
  /** The tokens of all nodes, a slot each: an array of their own would cost more than all else about a node. */
  #tokens: Int32Array;
  readonly #freeSlots: number[] = [];
  #numSlots = 0;
  #numEmptied = 0;

  constructor(tokensPerBlock: number) {
    this.#tokensPerBlock = tokensPerBlock;
    this.#tokens = new Int32Array(256 * tokensPerBlock);
  }

  /** What a node holds; valid until the tree changes. */
  tokensOf({ slot, numTokens }: CachedBlock): Int32Array {
    const start = slot * this.#tokensPerBlock;
    return this.#tokens.subarray(start, start + numTokens);
  }

  /** How many tokens from `from` on a node holds, `most` at most. */
  #commonLength({ slot, numTokens }: CachedBlock, tokens: Int32Array, from: number, most: number): number {
    const held = this.#tokens;
    const start = slot * this.#tokensPerBlock;
    const length = Math.min(numTokens, most);
    let count = 0;
    while (count < length && held[start + count] === tokens[from + count]) count++;
    return count;
  }

  /** Puts tokens [from, to) into a slot. */
  #store(tokens: Int32Array, from: number, to: number): number {
    const slot = this.#freeSlots.pop() ?? this.#numSlots++;
    const start = slot * this.#tokensPerBlock;
    if (start >= this.#tokens.length) {
      const grown = new Int32Array(2 * this.#tokens.length);
      grown.set(this.#tokens);
      this.#tokens = grown;
    }
    const held = this.#tokens;
    for (let i = from; i < to; i++) held[start + i - from] = tokens[i]!;
    return slot;
  }

  /** The root of a scope, made when it is missing. */
  root(scope: string): CachedBlock {
    let root = this.#roots.get(scope);
    if (root === undefined) {
      root = new CachedBlock([], scopeKey(scope), 0, 0, undefined);
      this.#roots.set(scope, root);
    }
    return root;
  }

  findRoot(scope: string): CachedBlock | undefined {
    return this.#roots.get(scope);
  }

  /** The child with this key and these tokens; 'taken' when another content has the key. */
  child(parent: CachedBlock, key: number, tokens: Int32Array, from: number): CachedBlock | 'taken' | undefined {
    const found = parent.child(key);
    if (found === undefined) return undefined;
    return this.#commonLength(found, tokens, from, this.#tokensPerBlock) === this.#tokensPerBlock ? found : 'taken';
  }

  /** The child that shares most tokens with tokens [from, to), and how many; undefined when none shares any. */
  closest(
    parent: CachedBlock,
    tokens: Int32Array,
    from: number,
    to: number,
  ): { source: CachedBlock; numTokens: number } | undefined {
    let source: CachedBlock | undefined;
    let most = 0;
    for (const child of parent.children()) {
      const common = this.#commonLength(child, tokens, from, to - from);
      // Of equals the one that may be taken over whole.
      if (common > most || (common === most && common > 0 && child.numTokens < source!.numTokens)) {
        source = child;
        most = common;
      }
    }
    return source === undefined ? undefined : { source, numTokens: most };
  }

  /** Adds a child with tokens [from, to); undefined when the key is in use. */
  insert(
    parent: CachedBlock,
    places: number[],
    tokens: Int32Array,
    from: number,
    to: number,
    key = blockKey(parent.key, tokens, from, to),
  ): CachedBlock | undefined {
    if (parent.child(key) !== undefined) return undefined;
    const child = new CachedBlock(places, key, to - from, this.#store(tokens, from, to), parent);
    parent.add(child);
    return child;
  }

  /** Takes a leaf out. */
  remove(node: CachedBlock): void {
    const { parent } = node;
    parent!.remove(node);
    this.#freeSlots.push(node.slot);
    // Scopes come and go with users: the roots of those that have no blocks any more are dropped now and then.
    if (parent!.parent !== undefined || !parent!.isLeaf || ++this.#numEmptied < 1024) return;
    this.#numEmptied = 0;
    for (const [scope, root] of this.#roots) if (root.isLeaf) this.#roots.delete(scope);
  }
}
