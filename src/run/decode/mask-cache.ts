// Masks by what was said so far: texts of one grammar begin alike, and what may follow the same tokens is the same. A tree of tokens, bounded in bytes over all grammars.

/** What may follow one beginning. */
export interface MaskState {
  /** A bit a token; undefined: not found out yet. */
  mask: Int32Array | undefined;
  /** Tokens that spell what can only follow, [] when several texts can; undefined: not found out yet. */
  forced: readonly number[] | undefined;
  readonly next: Map<number, MaskState>;
}

/** Bytes that a state takes besides its mask, roughly. */
const stateBytes = 200;

export class MaskCache {
  readonly #maxBytes: number;
  #bytes = 0;

  constructor(maxBytes = 32 << 20) {
    this.#maxBytes = maxBytes;
  }

  /** The state before anything is said. */
  root(): MaskState {
    return { mask: undefined, forced: undefined, next: new Map() };
  }

  /** The state after one more token; undefined when the cache is full, and for what follows then. */
  after(state: MaskState, token: number): MaskState | undefined {
    const known = state.next.get(token);
    if (known !== undefined) return known;
    if (this.#bytes >= this.#maxBytes) return undefined;
    const next = this.root();
    state.next.set(token, next);
    this.#bytes += stateBytes;
    return next;
  }

  keep(state: MaskState, mask: Int32Array): void {
    if (this.#bytes >= this.#maxBytes) return;
    state.mask = mask;
    this.#bytes += mask.byteLength;
  }

  /** The trees are gone: they were the makers' of the grammars. */
  clear(): void {
    this.#bytes = 0;
  }
}
