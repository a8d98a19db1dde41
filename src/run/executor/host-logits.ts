// The part of a step in which the host looks at the logits: processors change rows before they are sampled, log-probabilities and logits that requests asked for are read.
// A step in which nobody asks for any of this never copies logits off the device.
import { RequestError } from '../../base/errors.ts';
import { argmax } from '../../kernels/sample/reference.ts';
import { type TokenLogprobs, tokenLogprobs } from '../decode/logprobs.ts';
import type { Session } from '../session/batch.ts';
import type { LogitsTensor } from './outputs.ts';
import type { ScheduledSequence, StepPlan } from './plan.ts';
import type { Request, Sequence } from './request.ts';

function wantsRows({ samples, promptFrom, promptTo }: ScheduledSequence): boolean {
  if (promptTo > promptFrom) return true;
  return samples.some(({ request, processors }) => {
    const { logprobs, returnGenerationLogits } = request.data.params;
    return processors.length > 0 || logprobs !== undefined || returnGenerationLogits;
  });
}

/** The logits of a step as the model computed them, when someone wants them. */
export class HostLogits {
  readonly #rows: Float32Array | undefined;
  readonly #width: number;
  /** Requests whose processors threw, and what. */
  readonly failures = new Map<Request, unknown>();

  private constructor(rows: Float32Array | undefined, width: number) {
    this.#rows = rows;
    this.#width = width;
  }

  /** Reads the logits if someone wants them, and writes them back changed if someone's processors change them. */
  static async exchange(plan: StepPlan, session: Session): Promise<HostLogits> {
    const width = session.limits.vocabSize;
    if (!plan.entries.some(wantsRows)) return new HostLogits(undefined, width);
    const host = new HostLogits(await session.readLogits(), width);
    const processed = host.#process(plan);
    if (processed !== undefined) await session.writeLogits(processed);
    return host;
  }

  /** A view of one row, [vocabSize]; undefined when nobody wanted any. */
  row(index: number): Float32Array | undefined {
    return this.#rows?.subarray(index * this.#width, (index + 1) * this.#width);
  }

  logprobs(index: number, token: number, count: number): TokenLogprobs {
    return tokenLogprobs(this.row(index)!, token, count);
  }

  /** A copy of `count` rows. */
  copy(index: number, count: number): LogitsTensor {
    const data = this.#rows!.slice(index * this.#width, (index + count) * this.#width);
    return { data, shape: [count, this.#width] };
  }

  /** The rows after all processors, in an array of their own; undefined when there are none. */
  #process({ entries, numLogits }: StepPlan): Float32Array | undefined {
    let rows: Float32Array | undefined;
    for (const { samples, firstSampleRow } of entries) {
      samples.forEach((sequence, i) => {
        if (sequence.processors.length === 0) return;
        rows ??= this.#rows!.slice(0, numLogits * this.#width);
        const start = (firstSampleRow + i) * this.#width;
        this.#processRow(sequence, rows.subarray(start, start + this.#width));
      });
    }
    return rows;
  }

  #processRow(sequence: Sequence, row: Float32Array): void {
    try {
      for (const process of sequence.processors) process(row, sequence);
      if (argmax(row) < 0)
        throw new RequestError('no token is left to sample: biases, bad words or n-gram rules exclude them all');
    } catch (error) {
      this.failures.set(sequence.request, error);
    }
  }
}
