// The part of a step in which the host looks at the logits: processors change rows before they are sampled, log-probabilities and logits that requests asked for are read.
// A step in which nobody asks for any of this never copies logits off the device; grammars alone only mask them where they are.
import { deserializeError, RequestError } from '../../base/errors.ts';
import { logSumExp } from '../../kernels/sample/reference.ts';
import { type TokenLogprobs, tokenLogprobs } from '../decode/logprobs.ts';
import type { RowMask, Session } from '../session/batch.ts';
import { maskRow } from '../session/mask.ts';
import type { LogitsTensor } from './outputs.ts';
import type { ScheduledSequence, StepPlan } from './plan.ts';
import type { Request } from './request.ts';
import type { AskProcessors } from './user-processors.ts';

/** Whether any token may be sampled. */
function hasAny(row: Float32Array): boolean {
  for (let token = 0; token < row.length; token++) if (row[token]! > Number.NEGATIVE_INFINITY) return true;
  return false;
}

function wantsRows({ samples, promptFrom, promptTo }: ScheduledSequence): boolean {
  if (promptTo > promptFrom) return true;
  for (let i = 0; i < samples.length; i++) if (samples[i]!.wantsRow) return true;
  return false;
}

/** What grammars allow in the step's rows; requests that have failed are left out. */
function masksOf({ entries }: StepPlan, failures: ReadonlyMap<Request, unknown> | undefined): RowMask[] {
  const masks: RowMask[] = [];
  for (const { samples, numDrafts, firstSampleRow } of entries) {
    for (let i = 0; i < samples.length; i++) {
      const { guide, request } = samples[i]!;
      if (guide === undefined || failures?.has(request)) continue;
      // Proposals belong to a sequence that is alone in its entry.
      for (let ahead = 0; ahead <= numDrafts; ahead++) {
        const allowed = guide.allowed(ahead);
        if (allowed !== undefined) masks.push({ row: firstSampleRow + i + ahead, allowed });
      }
    }
  }
  return masks;
}

export interface ExchangeOptions {
  /** How rows get to the user's processors. */
  readonly ask?: AskProcessors | undefined;
  /** Requests that have failed in this step already. */
  readonly failures?: ReadonlyMap<Request, unknown>;
}

/** The logits of a step as the model computed them, when someone wants them. */
export class HostLogits {
  readonly #rows: Float32Array | undefined;
  #changed: Float32Array | undefined;
  readonly #width: number;
  readonly #norms = new Map<number, number>();
  /** Requests whose processors threw, and what. */
  readonly failures = new Map<Request, unknown>();

  private constructor(rows: Float32Array | undefined, width: number) {
    this.#rows = rows;
    this.#width = width;
  }

  /** Of a step at whose logits nobody looks. */
  static unseen(width: number): HostLogits {
    return new HostLogits(undefined, width);
  }

  /** Reads the logits if someone wants them, and writes them back changed if someone's processors change them. */
  static async exchange(
    plan: StepPlan,
    session: Session,
    { ask, failures }: ExchangeOptions = {},
  ): Promise<HostLogits> {
    const width = session.limits.vocabSize;
    if (!plan.entries.some(wantsRows)) {
      const masks = masksOf(plan, failures);
      if (masks.length > 0) await session.maskLogits(masks);
      const unseen = HostLogits.unseen(width);
      for (const [request, error] of failures ?? []) unseen.failures.set(request, error);
      return unseen;
    }
    const host = new HostLogits(await session.readLogits(), width);
    for (const [request, error] of failures ?? []) host.failures.set(request, error);
    if (ask !== undefined) await host.#askUser(plan, ask);
    host.#process(plan);
    host.#guide(plan);
    host.#checkRows(plan);
    if (host.#changed !== undefined) await session.writeLogits(host.#changed);
    return host;
  }

  /** A view of one row, [vocabSize]; undefined when nobody wanted any. */
  row(index: number): Float32Array | undefined {
    return this.#rows?.subarray(index * this.#width, (index + 1) * this.#width);
  }

  /** One row as the user's processors left it. */
  changedRow(index: number): Float32Array {
    return (this.#changed ?? this.#rows!).subarray(index * this.#width, (index + 1) * this.#width);
  }

  logprobs(index: number, token: number, count: number): TokenLogprobs {
    return tokenLogprobs(this.row(index)!, token, count);
  }

  /** Log-probability of one token. */
  logprob(index: number, token: number): number {
    const row = this.row(index)!;
    let norm = this.#norms.get(index);
    if (norm === undefined) this.#norms.set(index, (norm = logSumExp(row)));
    return row[token]! - norm;
  }

  /** A copy of `count` rows. */
  copy(index: number, count: number): LogitsTensor {
    const data = this.#rows!.slice(index * this.#width, (index + count) * this.#width);
    return { data, shape: [count, this.#width] };
  }

  /** Excludes what grammars do not allow. */
  #guide(plan: StepPlan): void {
    for (const { row, allowed } of masksOf(plan, this.failures)) maskRow(this.#own(row), allowed);
  }

  /** A row that may be changed: those as the model computed them are kept. */
  #own(index: number): Float32Array {
    this.#changed ??= this.#rows!.slice();
    return this.changedRow(index);
  }

  /** Sends the rows of all whose user has a processor over to it. */
  async #askUser({ entries }: StepPlan, ask: AskProcessors): Promise<void> {
    const asked = entries.flatMap(({ samples, firstSampleRow }) =>
      samples.flatMap((sequence, i) =>
        sequence.request.data.params.userProcessor === undefined ? [] : [{ sequence, row: firstSampleRow + i }],
      ),
    );
    if (asked.length === 0) return;
    const answers = await ask(
      asked.map(({ sequence: { request, index, tokens, numTokens, promptLength }, row }) => ({
        requestId: request.data.requestId,
        index,
        tokenIds: tokens.slice(0, numTokens),
        promptLength,
        logits: this.row(row)!.slice(),
        batched: request.data.params.userProcessor === 'batched',
      })),
    );
    asked.forEach(({ sequence, row }, i) => {
      const answer = answers[i]!;
      if ('error' in answer) this.failures.set(sequence.request, deserializeError(answer.error));
      else this.#own(row).set(answer.logits);
    });
  }

  /** The processors that requests ask for. */
  #process({ entries }: StepPlan): void {
    for (const { samples, firstSampleRow } of entries) {
      samples.forEach((sequence, i) => {
        if (sequence.processors.length === 0 || this.failures.has(sequence.request)) return;
        const row = this.#own(firstSampleRow + i);
        for (const process of sequence.processors) process(row, sequence);
      });
    }
  }

  /** A row from which everything is excluded ends its request. */
  #checkRows({ entries }: StepPlan): void {
    if (this.#changed === undefined) return;
    for (const { samples, firstSampleRow } of entries) {
      samples.forEach(({ wantsRow, guided, request }, i) => {
        if (!(wantsRow || guided) || request.beams !== undefined || this.failures.has(request)) return;
        if (hasAny(this.changedRow(firstSampleRow + i)) || !hasAny(this.row(firstSampleRow + i)!)) return;
        const reason = 'no token is left to sample: biases, bad words, n-gram rules or a grammar exclude them all';
        this.failures.set(request, new RequestError(reason));
      });
    }
  }
}
