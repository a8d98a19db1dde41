// What the server sees of requests, kept only while somebody watches: times to first tokens and between tokens, per viewer and since the viewer's last look.
import type { Observer, RequestFacts } from '../model.ts';
import type { RequestsSeen } from './api.ts';

/** Times between tokens that one look tells at most. */
const mostTimes = 256;

class Viewer {
  readonly model: string;
  #firstTokens: number[] = [];
  #interTokens: number[] = [];
  /** One in so many times between tokens is kept. */
  #stride = 1;
  #numTokens = 0;
  #numEnded = 0;
  #numFailed = 0;

  constructor(model: string) {
    this.model = model;
  }

  firstToken(milliseconds: number): void {
    this.#numTokens++;
    if (this.#firstTokens.length < mostTimes) this.#firstTokens.push(milliseconds);
  }

  tokens(count: number, milliseconds: number): void {
    for (let i = 0; i < count; i++) {
      if (this.#numTokens++ % this.#stride === 0) this.#interTokens.push(milliseconds / count);
    }
    if (this.#interTokens.length < mostTimes * 2) return;
    this.#interTokens = this.#interTokens.filter((_, i) => i % 2 === 0);
    this.#stride *= 2;
  }

  ended(facts: RequestFacts): void {
    this.#numEnded++;
    if (facts.outcome === 'error') this.#numFailed++;
  }

  take(): RequestsSeen {
    const seen: RequestsSeen = {
      timeToFirstToken: this.#firstTokens,
      interToken: this.#interTokens,
      numTokens: this.#numTokens,
      numEnded: this.#numEnded,
      numFailed: this.#numFailed,
    };
    this.#firstTokens = [];
    this.#interTokens = [];
    this.#stride = 1;
    this.#numTokens = this.#numEnded = this.#numFailed = 0;
    return seen;
  }
}

/** One who looks. */
export interface View extends Disposable {
  /** What was seen since the last call. */
  take(): RequestsSeen;
}

export class Watch implements Observer {
  readonly #viewers = new Set<Viewer>();

  /**
   * Begins to keep what is seen of a model's requests, until the view is disposed.
   * @internal
   */
  open(model: string): View {
    const viewer = new Viewer(model);
    this.#viewers.add(viewer);
    return {
      take: () => viewer.take(),
      [Symbol.dispose]: () => {
        this.#viewers.delete(viewer);
      },
    };
  }

  get numViewers(): number {
    return this.#viewers.size;
  }

  firstToken(model: string, milliseconds: number): void {
    for (const viewer of this.#viewers) if (viewer.model === model) viewer.firstToken(milliseconds);
  }

  tokens(model: string, count: number, milliseconds: number): void {
    for (const viewer of this.#viewers) if (viewer.model === model) viewer.tokens(count, milliseconds);
  }

  requestEnded(facts: RequestFacts): void {
    for (const viewer of this.#viewers) if (viewer.model === facts.model) viewer.ended(facts);
  }
}
