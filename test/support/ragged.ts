// Drives a session by hand: sequences with block tables of their own, packed into ragged batches as a test wants them.
import type { Batch, Session } from '../../src/run/session/batch.ts';

export interface TestSequence {
  readonly tokens: number[];
  readonly blocks: number[];
  /** Blocks in the further groups of layers. */
  readonly otherBlocks: readonly (readonly number[])[];
  /** Tokens already in the cache. */
  past: number;
}

export class RaggedDriver {
  readonly session: Session;
  #nextBlock = 0;

  constructor(session: Session) {
    this.session = session;
  }

  /** A sequence with blocks for its whole possible length, deliberately not in order. */
  sequence(tokens: readonly number[], maxLength: number): TestSequence {
    const count = Math.ceil(maxLength / this.session.limits.tokensPerBlock);
    const [blocks, ...otherBlocks] = (this.session.limits.cacheGroups ?? [{}]).map(() => {
      const ids = Array.from({ length: count }, (_, i) => this.#nextBlock + i).reverse();
      this.#nextBlock += count;
      return ids;
    });
    if (this.#nextBlock > this.session.limits.numBlocks) throw new Error('test uses more blocks than the pool has');
    return { tokens: [...tokens], blocks: blocks!, otherBlocks, past: 0 };
  }

  /** Computes `count` further tokens of each sequence in one step; returns logits of every one of them, by sequence. */
  async step(parts: readonly { readonly sequence: TestSequence; readonly count: number }[]): Promise<Float32Array[][]> {
    const { limits } = this.session;
    const T = parts.reduce((sum, { count }) => sum + count, 0);
    const tokens = new Int32Array(T);
    const positions = new Int32Array(T);
    const cacheSlots = new Int32Array(T);
    const requestOffsets = new Int32Array(parts.length + 1);
    const contextLengths = new Int32Array(parts.length);
    const blockTables = new Int32Array(parts.length * limits.maxBlocksPerSequence);
    const otherGroups = (limits.cacheGroups ?? [{}]).slice(1).map(() => ({
      blockTables: new Int32Array(parts.length * limits.maxBlocksPerSequence),
      cacheSlots: new Int32Array(T),
    }));
    let at = 0;
    parts.forEach(({ sequence, count }, r) => {
      blockTables.set(sequence.blocks, r * limits.maxBlocksPerSequence);
      otherGroups.forEach((group, g) => {
        group.blockTables.set(sequence.otherBlocks[g]!, r * limits.maxBlocksPerSequence);
      });
      for (let i = 0; i < count; i++, at++) {
        const position = sequence.past + i;
        tokens[at] = sequence.tokens[position]!;
        positions[at] = position;
        cacheSlots[at] =
          sequence.blocks[Math.floor(position / limits.tokensPerBlock)]! * limits.tokensPerBlock +
          (position % limits.tokensPerBlock);
        otherGroups.forEach((group, g) => {
          group.cacheSlots[at] =
            sequence.otherBlocks[g]![Math.floor(position / limits.tokensPerBlock)]! * limits.tokensPerBlock +
            (position % limits.tokensPerBlock);
        });
      }
      requestOffsets[r + 1] = at;
      sequence.past += count;
      contextLengths[r] = sequence.past;
    });
    const rows = Int32Array.from({ length: T }, (_, i) => i);
    const zeros = new Float32Array(T);
    const ints = new Int32Array(T);
    const words = new Uint32Array(T);
    const batch: Batch = {
      numTokens: T,
      numRequests: parts.length,
      numLogits: T,
      tokens,
      positions,
      requestOffsets,
      contextLengths,
      blockTables,
      cacheSlots,
      otherGroups,
      logitsRows: rows,
      sampling: {
        temperature: zeros,
        topK: ints,
        topP: zeros.map(() => 1),
        minP: zeros,
        seedLow: words,
        seedHigh: words,
        counter: words,
      },
    };
    await this.session.forward(batch);
    const logits = await this.session.readLogits();
    return parts.map(({ count }, r) =>
      Array.from({ length: count }, (_, i) => {
        const row = requestOffsets[r]! + i;
        return logits.subarray(row * limits.vocabSize, (row + 1) * limits.vocabSize);
      }),
    );
  }
}

export function argmax(row: Float32Array): number {
  return row.reduce((best, value, i) => (value > row[best]! ? i : best), 0);
}
