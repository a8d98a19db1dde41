// What the engine puts out, on its way to the executor: one message a step. While the reader is behind, further updates are merged by request, so that what waits never
// outgrows the tokens of the open requests.
import { serializeError } from '../../base/errors.ts';
import type { Update } from './emission.ts';
import { type LogitsTensor, mergeResponses, type Response } from './outputs.ts';
import type { WireUpdate } from './protocol.ts';

/** Messages under way at once. */
const maxInFlight = 4;

interface Held {
  response: Response | undefined;
  numUpdates: number;
}

export class Outbox {
  readonly #interval: number;
  /** With an interval: what open requests have not been told yet. */
  readonly #held = new Map<number, Held>();
  readonly #send: (updates: readonly WireUpdate[], transfer: readonly ArrayBuffer[]) => void;
  readonly #waiting = new Map<number, WireUpdate>();
  #inFlight = 0;

  /** `interval`: updates that a request gathers before they go out together; its first and its last go at once. */
  constructor(send: (updates: readonly WireUpdate[], transfer: readonly ArrayBuffer[]) => void, interval = 1) {
    this.#send = send;
    this.#interval = interval;
  }

  put(updates: readonly Update[]): void {
    for (const update of updates) {
      if ('error' in update) {
        this.#held.delete(update.requestId);
        this.#waiting.set(update.requestId, { requestId: update.requestId, error: serializeError(update.error) });
        continue;
      }
      const response = this.#interval === 1 ? update.response : this.#hold(update.response);
      if (response === undefined) continue;
      const { requestId } = response;
      const earlier = this.#waiting.get(requestId);
      const merged =
        earlier !== undefined && 'response' in earlier ? mergeResponses(earlier.response, response) : response;
      this.#waiting.set(requestId, { response: merged });
    }
    this.#flush();
  }

  /** The response with what was held of its request; undefined while that is held on. */
  #hold(response: Response): Response | undefined {
    const { requestId, finished, outputs } = response;
    const held = this.#held.get(requestId);
    if (held === undefined) {
      if (!finished) this.#held.set(requestId, { response: undefined, numUpdates: 0 });
      return response;
    }
    const all = held.response === undefined ? response : mergeResponses(held.response, response);
    held.numUpdates++;
    const ends = finished || outputs.some(({ finishReason }) => finishReason !== undefined);
    if (!ends && held.numUpdates < this.#interval) {
      held.response = all;
      return undefined;
    }
    held.response = undefined;
    held.numUpdates = 0;
    if (finished) this.#held.delete(requestId);
    return all;
  }

  acknowledge(): void {
    this.#inFlight--;
    this.#flush();
  }

  #flush(): void {
    if (this.#inFlight >= maxInFlight || this.#waiting.size === 0) return;
    const updates = [...this.#waiting.values()];
    this.#waiting.clear();
    this.#inFlight++;
    this.#send(
      updates,
      updates.flatMap((update) => ('response' in update ? buffers(update.response) : [])),
    );
  }
}

/** The large arrays of a response, which are moved and not copied. */
function buffers({ contextLogits, outputs }: Response): ArrayBuffer[] {
  const tensors: (LogitsTensor | undefined)[] = [contextLogits, ...outputs.map((delta) => delta.generationLogits)];
  return tensors.flatMap((tensor) => (tensor === undefined ? [] : [tensor.data.buffer as ArrayBuffer]));
}
