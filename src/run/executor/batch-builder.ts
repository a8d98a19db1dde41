// A step plan → the ragged arrays that a session takes. The arrays are made once, for the session's limits, and filled anew each step.
import type { BlockTable } from '../kv/block-table.ts';
import type { Batch, GroupTables, SessionLimits } from '../session/batch.ts';
import type { ScheduledSequence, StepPlan } from './plan.ts';
import type { Sequence } from './request.ts';

export class BatchBuilder {
  readonly #limits: SessionLimits;
  readonly #tokens: Int32Array;
  readonly #positions: Int32Array;
  readonly #requestOffsets: Int32Array;
  readonly #contextLengths: Int32Array;
  /** For each group of layers. */
  readonly #groups: readonly GroupTables[];
  readonly #logitsRows: Int32Array;
  readonly #sampling;
  /** Whose table and whose parameters a row holds from the steps before. */
  readonly #tables: (BlockTable | undefined)[] = [];
  readonly #versions: number[] = [];
  readonly #samplers: (Sequence | undefined)[] = [];

  constructor(limits: SessionLimits) {
    const { maxBatchSize, maxNumTokens, maxNumLogits, maxBlocksPerSequence } = limits;
    this.#limits = limits;
    this.#tokens = new Int32Array(maxNumTokens);
    this.#positions = new Int32Array(maxNumTokens);
    this.#requestOffsets = new Int32Array(maxBatchSize + 1);
    this.#contextLengths = new Int32Array(maxBatchSize);
    this.#groups = (limits.cacheGroups ?? [{}]).map(() => ({
      blockTables: new Int32Array(maxBatchSize * maxBlocksPerSequence),
      cacheSlots: new Int32Array(maxNumTokens),
    }));
    this.#logitsRows = new Int32Array(maxNumLogits);
    this.#sampling = {
      temperature: new Float32Array(maxNumLogits),
      topK: new Int32Array(maxNumLogits),
      topP: new Float32Array(maxNumLogits),
      minP: new Float32Array(maxNumLogits),
      seedLow: new Uint32Array(maxNumLogits),
      seedHigh: new Uint32Array(maxNumLogits),
      counter: new Uint32Array(maxNumLogits),
    };
  }

  /** The batch of a plan. It is valid until the next call. */
  build(plan: StepPlan): Batch {
    const { entries } = plan;
    let token = 0;
    for (let row = 0; row < entries.length; row++) {
      const entry = entries[row]!;
      this.#requestOffsets[row] = token;
      this.#fillTokens(entry, token);
      this.#fillTable(entry, row);
      if (entry.samples.length > 0 || entry.promptTo > entry.promptFrom) this.#fillLogits(entry, token);
      token += entry.count;
    }
    this.#requestOffsets[entries.length] = token;
    return {
      numTokens: plan.numTokens,
      numRequests: plan.entries.length,
      numLogits: plan.numLogits,
      tokens: this.#tokens,
      positions: this.#positions,
      requestOffsets: this.#requestOffsets,
      contextLengths: this.#contextLengths,
      ...this.#groups[0]!,
      otherGroups: this.#groups.slice(1),
      logitsRows: this.#logitsRows,
      sampling: this.#sampling,
    };
  }

  #fillTokens({ sequence, start, count }: ScheduledSequence, offset: number): void {
    const { tokensPerBlock } = this.#limits;
    const { tokens, table } = sequence;
    for (let i = 0; i < count; i++) {
      const position = start + i;
      const inBlock = position % tokensPerBlock;
      const block = (position - inBlock) / tokensPerBlock;
      this.#tokens[offset + i] = tokens[position]!;
      this.#positions[offset + i] = position;
      for (let group = 0; group < this.#groups.length; group++)
        this.#groups[group]!.cacheSlots[offset + i] = table.block(block, group) * tokensPerBlock + inBlock;
    }
  }

  #fillTable({ sequence: { table }, start, count }: ScheduledSequence, row: number): void {
    this.#contextLengths[row] = start + count;
    // Tables change seldom: a row is as it was when its table is the same.
    if (this.#tables[row] === table && this.#versions[row] === table.version) return;
    this.#tables[row] = table;
    this.#versions[row] = table.version;
    const { ids, numBlocks } = table;
    const at = row * this.#limits.maxBlocksPerSequence;
    const numGroups = this.#groups.length;
    for (let group = 0; group < numGroups; group++) {
      const { blockTables } = this.#groups[group]!;
      // What is out of the window is never read; kernels may ask for it ahead, so it has to be a block of the pool.
      for (let i = 0; i < numBlocks; i++) blockTables[at + i] = Math.max(0, ids[i * numGroups + group]!);
    }
  }

  #fillLogits(entry: ScheduledSequence, offset: number): void {
    const { start, count, promptFrom, promptTo, firstRow, firstSampleRow, samples, numDrafts } = entry;
    for (let position = promptFrom; position < promptTo; position++) {
      const row = firstRow + position - promptFrom;
      this.#logitsRows[row] = offset + position - start;
      this.#sampleGreedily(row);
    }
    for (let i = 0; i < samples.length; i++) {
      this.#logitsRows[firstSampleRow + i] = offset + count - 1 - numDrafts;
      this.#sampleAs(samples[i]!, firstSampleRow + i, 0);
    }
    for (let i = 1; i <= numDrafts; i++) {
      this.#logitsRows[firstSampleRow + i] = offset + count - 1 - numDrafts + i;
      this.#sampleAs(entry.sequence, firstSampleRow + i, i);
    }
  }

  /** Prompt rows are not sampled for their tokens: the cheapest way will do. */
  #sampleGreedily(row: number): void {
    this.#samplers[row] = undefined;
    this.#sampling.temperature[row] = 0;
    this.#sampling.topK[row] = 0;
    this.#sampling.topP[row] = 1;
    this.#sampling.minP[row] = 0;
    this.#sampling.counter[row] = 0;
  }

  /** `ahead`: so many tokens after the next one. */
  #sampleAs(sequence: Sequence, row: number, ahead: number): void {
    const sampling = this.#sampling;
    sampling.counter[row] = sequence.numTokens - sequence.promptLength + ahead;
    sampling.topP[row] = sequence.topP;
    if (this.#samplers[row] === sequence) return;
    this.#samplers[row] = sequence;
    const { temperature, topK, minP } = sequence.request.data.params;
    sampling.temperature[row] = temperature;
    sampling.topK[row] = Math.min(topK, this.#limits.vocabSize);
    sampling.minP[row] = minP;
    sampling.seedLow[row] = sequence.seedLow;
    sampling.seedHigh[row] = sequence.seedHigh;
  }
}
