// The free blocks in the order in which they were freed, as a doubly linked list over arrays: taking the oldest, and taking a given one out of the middle
// (a freed block whose content is wanted again), are both O(1).

const none = -1;

export class FreeList {
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  #head = none;
  #tail = none;
  #size = 0;

  /** All of 0 … capacity - 1 are free at first, in order. */
  constructor(capacity: number) {
    this.#next = new Int32Array(capacity).fill(none);
    this.#previous = new Int32Array(capacity).fill(none);
    for (let block = 0; block < capacity; block++) this.push(block);
  }

  get size(): number {
    return this.#size;
  }

  /** Appends a block: it will be taken after all that are free now. */
  push(block: number): void {
    this.#previous[block] = this.#tail;
    this.#next[block] = none;
    if (this.#tail === none) this.#head = block;
    else this.#next[this.#tail] = block;
    this.#tail = block;
    this.#size++;
  }

  /** Takes the block that is free for the longest time; undefined when none is. */
  shift(): number | undefined {
    const block = this.#head;
    if (block === none) return undefined;
    this.remove(block);
    return block;
  }

  /** Takes out a block that is in the list. */
  remove(block: number): void {
    const previous = this.#previous[block]!;
    const next = this.#next[block]!;
    if (previous === none) this.#head = next;
    else this.#next[previous] = next;
    if (next === none) this.#tail = previous;
    else this.#previous[next] = previous;
    this.#size--;
  }
}
