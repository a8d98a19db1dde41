// The last two minutes, in slices of half a second: what steps computed and how long tokens took. Times are the server's clock.
import type { LiveEvent } from '../../src/serve/dashboard/api.ts';
import { quantile } from '../format.ts';

export const sliceMs = 500;
export const spanMs = 120_000;

export interface Slice {
  generated: number;
  context: number;
  steps: number;
  running: number;
  waiting: number;
  usedBlocks: number;
  /** Times between tokens, milliseconds. */
  readonly between: number[];
}

export interface FirstToken {
  readonly time: number;
  readonly ms: number;
}

type Ready = Extract<LiveEvent, { state: 'ready' }>;

export class Series {
  readonly #slices = new Map<number, Slice>();
  readonly firstTokens: FirstToken[] = [];
  /** The server's time of the newest event. */
  now = 0;

  take({ engine, requests }: Ready): void {
    this.now = engine.time;
    for (const step of engine.iterations) {
      const slice = this.#at(step.time);
      slice.context += step.numCtxTokens;
      // A sequence that ends its context gets a token, too; what the chart shows is decoding.
      slice.generated += step.numDecoded;
      slice.steps++;
      slice.running = Math.max(slice.running, step.numRunning);
      slice.waiting = Math.max(slice.waiting, step.numWaiting);
      slice.usedBlocks = Math.max(slice.usedBlocks, step.usedNumBlocks);
    }
    const newest = this.#at(engine.time);
    newest.running = Math.max(newest.running, engine.running.length);
    newest.waiting = Math.max(newest.waiting, engine.numWaiting);
    newest.between.push(...requests.interToken);
    for (const ms of requests.timeToFirstToken) this.firstTokens.push({ time: engine.time, ms });
    this.#forget();
  }

  /** Slices from the oldest to the last whole one; undefined where nothing happened. */
  *slices(): Generator<readonly [time: number, slice: Slice | undefined]> {
    const last = Math.floor(this.now / sliceMs) - 1;
    for (let i = last - spanMs / sliceMs + 1; i <= last; i++) yield [i * sliceMs, this.#slices.get(i)];
  }

  /** Means over the last `seconds` whole seconds, per second. */
  rate(seconds: number): { readonly generated: number; readonly context: number; readonly steps: number } {
    const sum = { generated: 0, context: 0, steps: 0 };
    const last = Math.floor(this.now / sliceMs) - 1;
    const count = (seconds * 1000) / sliceMs;
    for (let i = last - count + 1; i <= last; i++) {
      const slice = this.#slices.get(i);
      if (slice === undefined) continue;
      sum.generated += slice.generated;
      sum.context += slice.context;
      sum.steps += slice.steps;
    }
    return { generated: sum.generated / seconds, context: sum.context / seconds, steps: sum.steps / seconds };
  }

  /** Median and 95th percentile over the whole span; undefined when there was none. */
  between(): readonly [number, number] | undefined {
    const all = [...this.#slices.values()].flatMap(({ between }) => between).sort((a, b) => a - b);
    return pair(all);
  }

  toFirst(): readonly [number, number] | undefined {
    return pair(this.firstTokens.map(({ ms }) => ms).sort((a, b) => a - b));
  }

  #at(time: number): Slice {
    const index = Math.floor(time / sliceMs);
    let slice = this.#slices.get(index);
    if (slice === undefined) {
      slice = { generated: 0, context: 0, steps: 0, running: 0, waiting: 0, usedBlocks: 0, between: [] };
      this.#slices.set(index, slice);
    }
    return slice;
  }

  #forget(): void {
    const oldest = Math.floor((this.now - spanMs) / sliceMs) - 1;
    for (const index of this.#slices.keys()) if (index < oldest) this.#slices.delete(index);
    while (this.firstTokens.length > 0 && this.firstTokens[0]!.time < this.now - spanMs) this.firstTokens.shift();
  }
}

function pair(sorted: readonly number[]): readonly [number, number] | undefined {
  const middle = quantile(sorted, 0.5);
  return middle === undefined ? undefined : [middle, quantile(sorted, 0.95)!];
}
