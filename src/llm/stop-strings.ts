// Finds stop strings in a text that arrives in pieces, and holds back what may be the beginning of one.
import { RequestError, show } from '../base/errors.ts';

export interface StopStringsOptions {
  /** Keeps the stop string at the end of the text. Default false. */
  readonly includeStopInOutput?: boolean;
}

export interface StopResult {
  /** Text that may be given out now. After a match it ends where the stop string begins (or ends, with `includeStopInOutput`). */
  readonly text: string;
  /** The stop string that was found; null while none was. */
  readonly stop: string | null;
}

/** A node of the automaton: the longest suffix of the text that is a prefix of some stop string. */
interface Node {
  readonly next: Map<number, Node>;
  /** Length of that prefix in UTF-16 units. */
  readonly depth: number;
  fail: Node | undefined;
  /** The longest stop string that ends here. */
  stop: string | undefined;
}

function newNode(depth: number): Node {
  return { next: new Map(), depth, fail: undefined, stop: undefined };
}

function follow(root: Node, from: Node, unit: number): Node {
  for (let node: Node | undefined = from; node !== undefined; node = node.fail) {
    const next = node.next.get(unit);
    if (next !== undefined) return next;
  }
  return root;
}

/** The automaton of Aho and Corasick (1975, doi:10.1145/360825.360855) over UTF-16 units. */
function build(stops: readonly string[]): Node {
  const root = newNode(0);
  for (const stop of stops) {
    let node = root;
    for (let i = 0; i < stop.length; i++) {
      let next = node.next.get(stop.charCodeAt(i));
      if (next === undefined) node.next.set(stop.charCodeAt(i), (next = newNode(node.depth + 1)));
      node = next;
    }
    node.stop = stop;
  }
  const queue = [root];
  for (let head = 0; head < queue.length; head++) {
    const node = queue[head]!;
    for (const [unit, child] of node.next) {
      child.fail = node.fail === undefined ? root : follow(root, node.fail, unit);
      child.stop ??= child.fail.stop;
      queue.push(child);
    }
  }
  return root;
}

/**
 * Watches one sequence's text. The match is the one that ends first in the text, and of those ending at the same place the longest, so that it does not
 * depend on how the text was cut into deltas. Time is linear in the text, whatever the number of stop strings.
 */
export class StopStrings {
  readonly #root: Node;
  readonly #include: boolean;
  #node: Node;
  /** The end of the text, not yet given out: as long as the current node is deep. */
  #held = '';
  #stop: string | null = null;

  /** Throws RequestError when `stop` is not a list of non-empty strings. */
  constructor(stop: readonly string[], options: StopStringsOptions = {}) {
    for (const text of stop)
      if (typeof text !== 'string' || text === '')
        throw new RequestError('not a stop string', { where: 'stop', expected: 'non-empty strings', got: show(text) });
    this.#root = build(stop);
    this.#node = this.#root;
    this.#include = options.includeStopInOutput ?? false;
  }

  /** The stop string that was found; null while none was. */
  get stop(): string | null {
    return this.#stop;
  }

  /** Adds text. After a match, the rest of the delta and all later deltas are dropped. */
  push(delta: string): StopResult {
    if (this.#stop !== null) return { text: '', stop: this.#stop };
    for (let i = 0; i < delta.length; i++) {
      this.#node = follow(this.#root, this.#node, delta.charCodeAt(i));
      const stop = this.#node.stop;
      if (stop === undefined) continue;
      const upTo = this.#held + delta.slice(0, i + 1);
      this.#stop = stop;
      this.#held = '';
      return { text: this.#include ? upTo : upTo.slice(0, upTo.length - stop.length), stop };
    }
    const text = this.#held + delta;
    const certain = text.length - this.#node.depth;
    this.#held = text.slice(certain);
    return { text: text.slice(0, certain), stop: null };
  }

  /** Ends the text without a match; returns what was held back. */
  flush(): string {
    const text = this.#held;
    this.#held = '';
    this.#node = this.#root;
    return text;
  }
}
