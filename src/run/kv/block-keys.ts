// Names of blocks by content: a hash over the block's tokens and the name of the block before it, so that equal names mean (nearly always) equal prefixes. The first name comes from
// the scope (salt, adapter). 53 bits: an exact integer in JavaScript and in JSON. The cache compares tokens as well; the name alone is never trusted.

const lanes = 2 ** 32;

function mix(hash: number, value: number, factor: number): number {
  const product = Math.imul(hash ^ value, factor);
  return product ^ (product >>> 15);
}

/** The name of a block that holds tokens [from, to) and follows the block named `parent`. */
export function blockKey(parent: number, tokens: ArrayLike<number>, from: number, to: number): number {
  let low = parent >>> 0;
  let high = Math.floor(parent / lanes);
  for (let i = from; i < to; i++) {
    low = mix(low, tokens[i]! + 1, 0x9e3779b1);
    high = mix(high, low ^ (low >>> 7), 0x85ebca77);
  }
  return ((high ^ (high >>> 11)) & 0x1fffff) * lanes + (low >>> 0);
}

/** What the names of all blocks of a scope begin with; 0 for the empty scope. */
export function scopeKey(scope: string): number {
  if (scope === '') return 0;
  return blockKey(
    1,
    Array.from(scope, (character) => character.codePointAt(0)!),
    0,
    scope.length,
  );
}

/** The names of a sequence's full blocks, computed once each. */
export class BlockKeys {
  readonly scope: string;
  readonly #tokensPerBlock: number;
  readonly #keys: number[] = [];

  constructor(scope: string, tokensPerBlock: number) {
    this.scope = scope;
    this.#tokensPerBlock = tokensPerBlock;
  }

  /** Name of block `index` of a sequence with these tokens, which has to be full. */
  at(index: number, tokens: Int32Array): number {
    while (this.#keys.length <= index) {
      const start = this.#keys.length * this.#tokensPerBlock;
      this.#keys.push(blockKey(this.#keys.at(-1) ?? scopeKey(this.scope), tokens, start, start + this.#tokensPerBlock));
    }
    return this.#keys[index]!;
  }

  /** Tokens from `numTokens` on have become others. */
  truncate(numTokens: number): void {
    const kept = Math.floor(numTokens / this.#tokensPerBlock);
    if (this.#keys.length > kept) this.#keys.length = kept;
  }

  /** The same names for a sequence that begins alike. */
  clone(): BlockKeys {
    const copy = new BlockKeys(this.scope, this.#tokensPerBlock);
    for (const key of this.#keys) copy.#keys.push(key);
    return copy;
  }
}

/** The names of the full blocks of a prompt, as the events of a cache with blocks of this size carry them: a router matches them against what replicas hold. */
export function blockHashes(tokens: ArrayLike<number>, tokensPerBlock: number, scope = ''): number[] {
  const hashes: number[] = [];
  for (let start = 0; start + tokensPerBlock <= tokens.length; start += tokensPerBlock)
    hashes.push(blockKey(hashes.at(-1) ?? scopeKey(scope), tokens, start, start + tokensPerBlock));
  return hashes;
}
