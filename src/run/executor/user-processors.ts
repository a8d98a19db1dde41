// Logits processors of the user. They are functions and stay in the thread they were made in: the engine sends the rows over and waits for them.
import { ExecutorError, RequestError, type SerializedError, serializeError } from '../../base/errors.ts';
import type { LogitsProcessorCall, UserLogitsProcessor } from '../decode/sampling-params.ts';

/** A row on its way to its processor. */
export interface ProcessorRow {
  readonly requestId: number;
  readonly index: number;
  readonly tokenIds: Int32Array;
  readonly promptLength: number;
  readonly logits: Float32Array;
  /** Whether the executor's batched processor is meant, and not the request's own. */
  readonly batched: boolean;
}

export type ProcessedRow = { readonly logits: Float32Array } | { readonly error: SerializedError };

/** Sends rows to the user's processors and gives back what they made of them, in the same order. */
export type AskProcessors = (rows: readonly ProcessorRow[]) => Promise<readonly ProcessedRow[]>;

/** Several calls at once: one for each row of the step that wants it. */
export type BatchedLogitsProcessor = (calls: readonly LogitsProcessorCall[]) => void | Promise<void>;

/** A request as its processors see it. */
export interface Processing {
  readonly processors: readonly UserLogitsProcessor[];
  /** Resolves or rejects when nobody waits for the request any more. */
  readonly ended: Promise<void>;
  fail(cause: unknown): void;
}

/** The user's side: runs the processors of rows that came over. What a processor throws ends its request, with the cause. */
export class UserProcessors {
  readonly #batched: BatchedLogitsProcessor | undefined;
  readonly #find: (requestId: number) => Processing | undefined;

  constructor(batched: BatchedLogitsProcessor | undefined, find: (requestId: number) => Processing | undefined) {
    this.#batched = batched;
    this.#find = find;
  }

  async process(rows: readonly ProcessorRow[]): Promise<ProcessedRow[]> {
    const together = rows.filter(({ batched }) => batched);
    const batch = together.length === 0 ? undefined : this.#runBatched(together);
    return await Promise.all(
      rows.map((row) => (row.batched ? this.#settle(row, batch!) : this.#settle(row, this.#run(row)))),
    );
  }

  async #run(row: ProcessorRow): Promise<void> {
    for (const process of this.#find(row.requestId)?.processors ?? []) await process(callOf(row));
  }

  async #runBatched(rows: readonly ProcessorRow[]): Promise<void> {
    if (this.#batched === undefined)
      throw new RequestError('there is no batched logits processor', {
        where: 'samplingParams.applyBatchedLogitsProcessor',
        remedy: 'Set batchedLogitsProcessor where the model is loaded',
      });
    await this.#batched(rows.map(callOf));
  }

  /** Waits for a row's processor, but not longer than anybody waits for its request. */
  async #settle(row: ProcessorRow, running: Promise<void>): Promise<ProcessedRow> {
    const request = this.#find(row.requestId);
    const gone = new ExecutorError('the request has ended');
    if (request === undefined) return { error: serializeError(gone) };
    try {
      const ended = request.ended.catch(() => {}).then(() => Promise.reject(gone));
      await Promise.race([running, ended]);
      return { logits: row.logits };
    } catch (cause) {
      const error =
        cause instanceof RequestError || cause === gone
          ? cause
          : new RequestError(`the logits processor failed: ${textOf(cause)}`, { cause });
      if (cause !== gone) request.fail(error);
      return { error: serializeError(error) };
    }
  }
}

function textOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

function callOf({ batched: _, ...call }: ProcessorRow): LogitsProcessorCall {
  return call;
}
