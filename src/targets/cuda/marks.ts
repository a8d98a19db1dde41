// Events between launches: how long each took on the device. Graphs are left aside while somebody asks.
import { debug } from '../../base/debug.ts';
import type { PreparedWork } from './launch.ts';
import type { Event, Stream } from './stream.ts';

export class LaunchMarks implements Disposable {
  readonly #stream: Stream;
  readonly #makeEvent: () => Event;
  readonly #events: Event[] = [];
  #numIssued = 0;

  constructor(stream: Stream, makeEvent: () => Event) {
    this.#stream = stream;
    this.#makeEvent = makeEvent;
  }

  /** Gives launches to the stream, one after the other, with an event after each. */
  issue(launches: readonly PreparedWork[]): void {
    while (this.#events.length <= launches.length) this.#events.push(this.#makeEvent());
    this.#numIssued = launches.length;
    this.#events[0]!.record(this.#stream);
    launches.forEach((launch, i) => {
      launch.issue(this.#stream);
      this.#events[i + 1]!.record(this.#stream);
    });
  }

  /** Resolves when the last launch is done. */
  async reached(): Promise<void> {
    await this.#events[this.#numIssued]!.reached();
  }

  /** When the stream is done: adds the milliseconds of launch i to the entry `stepOf[i]` of `times`. */
  addTo(times: Float64Array, stepOf: readonly number[]): void {
    stepOf.forEach((step, i) => {
      times[step]! += this.#events[i + 1]!.since(this.#events[i]!);
    });
  }

  [Symbol.dispose](): void {
    for (const event of this.#events) event[Symbol.dispose]();
  }
}

/** Issues one launch after the other and waits for each: what TYPERT_DEBUG=2 shows. */
export function showTimes(launches: readonly PreparedWork[], stream: Stream): void {
  stream.synchronize();
  for (const launch of launches) {
    const { name, shape } = launch;
    debug(4, () => `launch ${name} grid ${shape?.grid.join('x')} shared ${shape?.sharedBytes}`);
    const start = performance.now();
    launch.issue(stream);
    stream.synchronize();
    debug(2, () => `${name} ${((performance.now() - start) * 1e3).toFixed(0)} us`);
  }
}
