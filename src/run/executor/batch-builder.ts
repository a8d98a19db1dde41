// A step plan → the ragged arrays that a session takes. The arrays are made once, for the session's limits, and filled anew each step.
import type { Batch, SessionLimits } from '../session/batch.ts';
import type { ScheduledSequence, StepPlan } from './plan.ts';
import type { Sequence } from './request.ts';

export class BatchBuilder {
  readonly #limits: SessionLimits;
  readonly #tokens: Int32Array;
  readonly #positions: Int32Array;
  readonly #cacheSlots: Int32Array;
  readonly #requestOffsets: Int32Array;
  readonly #contextLengths: Int32Array;
  readonly #blockTables: Int32Array;
  readonly #logitsRows: Int32Array;
  readonly #sampling;

  constructor(limits: SessionLimits) {
    const { maxBatchSize, maxNumTokens, maxNumLogits, maxBlocksPerSequence } = limits;
    this.#limits = limits;
    this.#tokens = new Int32Array(maxNumTokens);
    this.#positions = new Int32Array(maxNumTokens);
    this.#cacheSlots = new Int32Array(maxNumTokens);
    this.#requestOffsets = new Int32Array(maxBatchSize + 1);
    this.#contextLengths = new Int32Array(maxBatchSize);
    this.#blockTables = new Int32Array(maxBatchSize * maxBlocksPerSequence);
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
    let token = 0;
    plan.entries.forEach((entry, row) => {
      this.#requestOffsets[row] = token;
      this.#fillTokens(entry, row, token);
      this.#fillLogits(entry, token);
      token += entry.count;
    });
    this.#requestOffsets[plan.entries.length] = token;
    return {
      numTokens: plan.numTokens,
      numRequests: plan.entries.length,
      numLogits: plan.numLogits,
      tokens: this.#tokens,
      positions: this.#positions,
      requestOffsets: this.#requestOffsets,
      contextLengths: this.#contextLengths,
      blockTables: this.#blockTables,
      cacheSlots: this.#cacheSlots,
      logitsRows: this.#logitsRows,
      sampling: this.#sampling,
    };
  }

  #fillTokens({ sequence, start, count }: ScheduledSequence, row: number, offset: number): void {
    const { tokensPerBlock, maxBlocksPerSequence } = this.#limits;
    const { ids, numBlocks } = sequence.table;
    this.#tokens.set(sequence.tokens.subarray(start, start + count), offset);
    for (let i = 0; i < count; i++) {
      const position = start + i;
      this.#positions[offset + i] = position;
      const block = ids[Math.floor(position / tokensPerBlock)]!;
      this.#cacheSlots[offset + i] = block * tokensPerBlock + (position % tokensPerBlock);
    }
    this.#contextLengths[row] = start + count;
    this.#blockTables.set(ids.subarray(0, numBlocks), row * maxBlocksPerSequence);
  }

  #fillLogits(entry: ScheduledSequence, offset: number): void {
    const { start, count, promptFrom, promptTo, firstRow, firstSampleRow, samples } = entry;
    for (let position = promptFrom; position < promptTo; position++) {
      const row = firstRow + position - promptFrom;
      this.#logitsRows[row] = offset + position - start;
      this.#sampleGreedily(row);
    }
    samples.forEach((sequence, i) => {
      this.#logitsRows[firstSampleRow + i] = offset + count - 1;
      this.#sampleAs(sequence, firstSampleRow + i);
    });
  }

  /** Prompt rows are not sampled for their tokens: the cheapest way will do. */
  #sampleGreedily(row: number): void {
    this.#sampling.temperature[row] = 0;
    this.#sampling.topK[row] = 0;
    this.#sampling.topP[row] = 1;
    this.#sampling.minP[row] = 0;
    this.#sampling.counter[row] = 0;
  }

  #sampleAs(sequence: Sequence, row: number): void {
    const { temperature, topK, topP, minP } = sequence.request.data.params;
    this.#sampling.temperature[row] = temperature;
    this.#sampling.topK[row] = Math.min(topK, this.#limits.vocabSize);
    this.#sampling.topP[row] = topP;
    this.#sampling.minP[row] = minP;
    this.#sampling.seedLow[row] = sequence.seedLow;
    this.#sampling.seedHigh[row] = sequence.seedHigh;
    this.#sampling.counter[row] = sequence.numGenerated;
  }
}
