// A session without a model whose answers depend on everything that the executor has to get right. Each token is stored in its cache slot; a row's logits are a hash of the whole
// history read back through the block table. A wrong table, slot, position, chunk or copy gives other tokens.
import { sampleRow } from '../../src/kernels/sample/reference.ts';
import type { Batch, RowMask, Samples, Session, SessionLimits, StepTimes } from '../../src/run/session/batch.ts';
import type { BlockCopies } from '../../src/targets/target.ts';

/** What a slot holds before anything is written, and after its block was poisoned. */
const empty = -1;

export interface FakeSessionOptions extends Partial<SessionLimits> {
  /** Throws in the forward call of this number, from 0. */
  readonly failAt?: number;
  /** Milliseconds a step takes; default 0: it never leaves the microtask queue. */
  readonly stepTime?: number;
  /** Logits depend on so many tokens only, so that texts run in circles; default: on all. */
  readonly memory?: number;
  /** Whether steps may be started ahead; default false. */
  readonly overlaps?: boolean;
  /** Told of every slot that a step writes. */
  readonly onWrite?: (block: number, offset: number) => void;
}

function mix(hash: number, value: number): number {
  let h = Math.imul(hash ^ value, 0x9e3779b1);
  h ^= h >>> 15;
  h = Math.imul(h, 0x85ebca77);
  return h ^ (h >>> 13);
}

export class FakeSession implements Session {
  readonly limits: SessionLimits;
  readonly numLaunches = { forward: 3, sample: 1 };
  readonly overlaps: boolean;
  readonly cache: Int32Array;
  readonly host: Int32Array;
  readonly #options: FakeSessionOptions;
  #logits = new Float32Array(0);
  #sampled = new Int32Array(0);
  /** What the device does, in order. */
  #queue: Promise<unknown> = Promise.resolve();
  #batch: Batch | undefined;
  numSteps = 0;
  numCopies = 0;
  /** Blocks that moved between device and host. */
  numMoves = 0;
  numReads = 0;
  numWrites = 0;
  /** Most tokens, requests and rows that one step had. */
  readonly most = { tokens: 0, requests: 0, logits: 0 };
  disposed = false;

  constructor(options: FakeSessionOptions = {}) {
    const { failAt: _, stepTime: __, onWrite: ___, memory: ____, overlaps, ...limits } = options;
    const tokensPerBlock = limits.tokensPerBlock ?? 4;
    const maxSeqLen = limits.maxSeqLen ?? 64;
    this.limits = {
      maxBatchSize: 8,
      maxNumTokens: 32,
      maxNumLogits: 32,
      maxSeqLen,
      tokensPerBlock,
      maxBlocksPerSequence: Math.ceil(maxSeqLen / tokensPerBlock),
      numBlocks: 256,
      vocabSize: 32,
      ...limits,
    };
    this.#options = options;
    this.overlaps = overlaps ?? true;
    this.cache = new Int32Array(this.limits.numBlocks * tokensPerBlock).fill(empty);
    this.host = new Int32Array((this.limits.numHostBlocks ?? 0) * tokensPerBlock).fill(empty);
  }

  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#queue.then(work);
    this.#queue = done.catch(() => {});
    return done;
  }

  async copyBlocks(copies: BlockCopies): Promise<void> {
    await this.#enqueue(async () => this.#copyBlocks(copies));
  }

  #copyBlocks({ kind, from, to }: BlockCopies): void {
    const { tokensPerBlock } = this.limits;
    if (kind !== 'device') {
      this.numMoves += from.length;
      const [source, target] = kind === 'toHost' ? [this.cache, this.host] : [this.host, this.cache];
      from.forEach((block, i) => {
        target.set(source.subarray(block * tokensPerBlock, (block + 1) * tokensPerBlock), to[i]! * tokensPerBlock);
      });
      return;
    }
    const sources = new Set(from);
    const targets = new Set(to);
    if (targets.size !== to.length || [...targets].some((block) => sources.has(block)))
      throw new Error('copies overlap: their order would matter');
    from.forEach((source, i) => {
      this.cache.copyWithin(to[i]! * tokensPerBlock, source * tokensPerBlock, (source + 1) * tokensPerBlock);
      this.numCopies++;
    });
  }

  async forward(batch: Batch, times?: StepTimes): Promise<void> {
    this.#announce(batch);
    if (times !== undefined) for (let i = 0; i < 3; i++) times.forward[i]! += i + 1;
    await this.#enqueue(() => this.#forward(batch));
  }

  async step(batch: Batch): Promise<Samples> {
    this.#announce(batch);
    return await this.#enqueue(async () => {
      await this.#forward(batch);
      return this.#sample();
    });
  }

  /** What a step will write is told when it is given: the host's books are of that moment, while the device may be a step behind. */
  #announce(batch: Batch): void {
    const { tokensPerBlock } = this.limits;
    const groups = [batch, ...(batch.otherGroups ?? [])];
    for (const slot of groups.flatMap(({ cacheSlots }) => [...cacheSlots.subarray(0, batch.numTokens)]))
      this.#options.onWrite?.(Math.floor(slot / tokensPerBlock), slot % tokensPerBlock);
  }

  async #forward(batch: Batch): Promise<void> {
    if (this.#options.failAt === this.numSteps) throw new Error('the device fell over');
    if (this.#options.stepTime) await new Promise((resolve) => setTimeout(resolve, this.#options.stepTime));
    this.numSteps++;
    this.#check(batch);
    this.#batch = batch;
    const written = new Set<number>();
    for (const { cacheSlots } of [batch, ...(batch.otherGroups ?? [])]) {
      for (let t = 0; t < batch.numTokens; t++) {
        const slot = cacheSlots[t]!;
        if (written.has(slot)) throw new Error(`slot ${slot} is written twice in one step`);
        written.add(slot);
        const token = batch.tokens[t]!;
        const known = token < 0 ? this.#sampled[-1 - token] : token;
        if (known === undefined) throw new Error('a token of a row that was not sampled');
        this.cache[slot] = known;
      }
    }
    this.#logits = new Float32Array(batch.numLogits * this.limits.vocabSize);
    for (let row = 0; row < batch.numLogits; row++) this.#computeRow(batch, row);
  }

  async maskLogits(masks: readonly RowMask[]): Promise<void> {
    const { vocabSize } = this.limits;
    for (const { row, allowed } of masks)
      for (let token = 0; token < vocabSize; token++)
        if (((allowed[token >> 5]! >>> (token & 31)) & 1) === 0)
          this.#logits[row * vocabSize + token] = Number.NEGATIVE_INFINITY;
  }

  async readLogits(): Promise<Float32Array> {
    this.numReads++;
    return this.#logits.slice();
  }

  async writeLogits(logits: Float32Array): Promise<void> {
    if (logits.length < this.#logits.length) throw new Error('too few logits');
    this.numWrites++;
    this.#logits.set(logits.subarray(0, this.#logits.length));
  }

  async sample(times?: StepTimes): Promise<Samples> {
    if (times !== undefined) times.sample[0]! += 4;
    return await this.#enqueue(async () => this.#sample());
  }

  #sample(): Samples {
    const batch = this.#batch!;
    const { vocabSize } = this.limits;
    const tokens = new Int32Array(batch.numLogits);
    const logprobs = new Float32Array(batch.numLogits);
    for (let row = 0; row < batch.numLogits; row++) {
      const { temperature, topK, topP, minP, seedLow, seedHigh, counter } = batch.sampling;
      const sampled = sampleRow(this.#logits.subarray(row * vocabSize, (row + 1) * vocabSize), {
        temperature: temperature[row]!,
        topK: topK[row]!,
        topP: topP[row]!,
        minP: minP[row]!,
        seedLow: seedLow[row]!,
        seedHigh: seedHigh[row]!,
        counter: counter[row]!,
      });
      tokens[row] = sampled.token;
      logprobs[row] = sampled.logprob;
    }
    this.#sampled = tokens;
    return { tokens, logprobs };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.disposed = true;
  }

  #check({ numTokens, numRequests, numLogits, requestOffsets, contextLengths, positions, logitsRows }: Batch): void {
    const { maxNumTokens, maxBatchSize, maxNumLogits } = this.limits;
    this.most.tokens = Math.max(this.most.tokens, numTokens);
    this.most.requests = Math.max(this.most.requests, numRequests);
    this.most.logits = Math.max(this.most.logits, numLogits);
    if (numTokens > maxNumTokens || numRequests > maxBatchSize || numLogits > maxNumLogits)
      throw new Error(`a step too large: ${numTokens} tokens, ${numRequests} requests, ${numLogits} logits`);
    if (requestOffsets[numRequests] !== numTokens) throw new Error('the last offset is not T');
    for (let r = 0; r < numRequests; r++) {
      const last = requestOffsets[r + 1]! - 1;
      if (last < requestOffsets[r]!) throw new Error('a request without tokens');
      if (positions[last]! + 1 !== contextLengths[r]) throw new Error('context length and position disagree');
    }
    for (let row = 1; row < numLogits; row++)
      if (logitsRows[row]! < logitsRows[row - 1]!) throw new Error('logits rows descend');
  }

  /** Logits of a row from the history of its token, as the cache holds it. */
  #computeRow(batch: Batch, row: number): void {
    const { tokensPerBlock, maxBlocksPerSequence, vocabSize } = this.limits;
    const token = batch.logitsRows[row]!;
    let request = 0;
    while (batch.requestOffsets[request + 1]! <= token) request++;
    let hash = 17;
    const last = batch.positions[token]!;
    const { memory = last + 1 } = this.#options;
    const { cacheGroups = [{}] } = this.limits;
    [batch, ...(batch.otherGroups ?? [])].forEach(({ blockTables }, group) => {
      const { window = last + 1, sinkTokens = 0 } = cacheGroups[group]!;
      const first = Math.max(0, last + 1 - Math.min(memory, window));
      for (let position = 0; position <= last; position++) {
        if (position < first && position >= sinkTokens) continue;
        const block = blockTables[request * maxBlocksPerSequence + Math.floor(position / tokensPerBlock)]!;
        hash = mix(hash, this.cache[block * tokensPerBlock + (position % tokensPerBlock)]! + 1);
      }
    });
    for (let v = 0; v < vocabSize; v++)
      this.#logits[row * vocabSize + v] = ((mix(mix(hash, v + 1), 99) >>> 8) / 2 ** 24) * 6 - 3;
  }
}
