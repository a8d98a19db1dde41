// What the engine puts out, on its way to the executor: one message a step. While the reader is behind, further updates are merged by request, so that what waits never
// outgrows the tokens of the open requests.
import { serializeError } from '../../base/errors.ts';
import type { Update } from './emission.ts';
import { type LogitsTensor, mergeResponses, type Response } from './outputs.ts';
import type { WireUpdate } from './protocol.ts';

/** Messages under way at once. */
const maxInFlight = 4;

export class Outbox {
  readonly #send: (updates: readonly WireUpdate[], transfer: readonly ArrayBuffer[]) => void;
  readonly #waiting = new Map<number, WireUpdate>();
  #inFlight = 0;

  constructor(send: (updates: readonly WireUpdate[], transfer: readonly ArrayBuffer[]) => void) {
    this.#send = send;
  }

  put(updates: readonly Update[]): void {
    for (const update of updates) {
      if ('error' in update) {
        this.#waiting.set(update.requestId, { requestId: update.requestId, error: serializeError(update.error) });
        continue;
      }
      const { requestId } = update.response;
      const earlier = this.#waiting.get(requestId);
      const merged =
        earlier !== undefined && 'response' in earlier
          ? mergeResponses(earlier.response, update.response)
          : update.response;
      this.#waiting.set(requestId, { response: merged });
    }
    this.#flush();
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
