// The blocks whose content is known, as a tree: a path from a root spells a prefix, a block a step. Each scope (salt, adapter) has a root of its own.
import { blockKey, scopeKey } from './block-keys.ts';
import { isOnDevice, nowhere } from './place.ts';
import { defaultPriority } from './retention.ts';

/** A stretch of tokens whose keys and values are known: a block in each group of layers. */
export class CachedBlock {
  /** Where they are, by group: see place.ts. */
  readonly places: number[];
  readonly key: number;
  /** What it holds: as many as a block has, or fewer where a sequence ended. */
  readonly tokens: Int32Array;
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

  constructor(places: number[], key: number, tokens: Int32Array, parent: CachedBlock | undefined) {
    this.places = places;
    this.key = key;
    this.tokens = tokens;
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

function commonLength(held: Int32Array, tokens: Int32Array, from: number, most: number): number {
  const length = Math.min(held.length, most);
  let count = 0;
  while (count < length && held[count] === tokens[from + count]) count++;
  return count;
}

export class ContentTree {
  readonly #roots = new Map<string, CachedBlock>();
  readonly #tokensPerBlock: number;
  #numEmptied = 0;

  constructor(tokensPerBlock: number) {
    this.#tokensPerBlock = tokensPerBlock;
  }

  /** The root of a scope, made when it is missing. */
  root(scope: string): CachedBlock {
    let root = this.#roots.get(scope);
    if (root === undefined) {
      root = new CachedBlock([], scopeKey(scope), new Int32Array(0), undefined);
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
    return commonLength(found.tokens, tokens, from, this.#tokensPerBlock) === this.#tokensPerBlock ? found : 'taken';
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
      const common = commonLength(child.tokens, tokens, from, to - from);
      // Of equals the one that may be taken over whole.
      if (common > most || (common === most && common > 0 && child.tokens.length < source!.tokens.length)) {
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
    const child = new CachedBlock(places, key, tokens.slice(from, to), parent);
    parent.add(child);
    return child;
  }

  /** Takes a leaf out. */
  remove(node: CachedBlock): void {
    const { parent } = node;
    parent!.remove(node);
    // Scopes come and go with users: the roots of those that have no blocks any more are dropped now and then.
    if (parent!.parent !== undefined || !parent!.isLeaf || ++this.#numEmptied < 1024) return;
    this.#numEmptied = 0;
    for (const [scope, root] of this.#roots) if (root.isLeaf) this.#roots.delete(scope);
  }
}
