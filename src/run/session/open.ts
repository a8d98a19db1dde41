// Opens an engine on a device: the session that steps are run on.

import { debug } from '../../base/debug.ts';
import { track } from '../../base/dispose.ts';
import { TargetError } from '../../base/errors.ts';
import { openEngine } from '../../compile/engine/read.ts';
import { findTarget } from '../../targets/index.ts';
import type { BlockCopies, Device, DeviceMemory, Program, ProgramMemory } from '../../targets/target.ts';
import type { Batch, RowMask, Samples, Session, SessionLimits, StepTimes } from './batch.ts';
import { maskRow } from './mask.ts';
import type { SessionOptions } from './options.ts';
import { groupsOf, hostPoolSize, poolSize } from './pool.ts';

/** A session that tells what it takes. */
export interface OpenedSession extends Session {
  /** What the program holds, and the device as it is now. */
  memory(): { readonly program: ProgramMemory; readonly device: DeviceMemory };
}

/** Opens the engine in `engineDir` and loads it on its target. The caller disposes the session. */
export async function openSession(options: SessionOptions): Promise<OpenedSession> {
  using engine = openEngine(options.engineDir);
  const { plan } = engine;
  if (options.target !== 'auto' && options.target !== plan.target) {
    throw new TargetError('engine is for another target', {
      where: options.engineDir,
      expected: options.target,
      got: plan.target,
      remedy: `Build it with --target ${options.target}`,
    });
  }
  const target = findTarget(engine.config.build_config.target);
  const { kvCacheConfig = {}, gpuMemory } = options;
  const device = await target.open(options.device === undefined ? {} : { index: options.device });
  try {
    const numHostBlocks = hostPoolSize(engine, target, kvCacheConfig);
    const { file } = engine;
    const readWeight = (name: string): Uint8Array => engine.readWeight(name);
    const program = await device.load({
      plan,
      numBlocks: poolSize(engine, target, { kvCacheConfig, gpuMemory }),
      numHostBlocks,
      file,
      readWeight,
    });
    const { numBlocks } = program;
    const limits: SessionLimits = {
      ...plan.limits,
      maxSeqLen: engine.config.build_config.max_seq_len,
      tokensPerBlock: plan.tokensPerBlock,
      maxBlocksPerSequence: plan.maxBlocksPerSequence,
      numBlocks,
      numHostBlocks,
      cacheGroups: groupsOf(plan),
      vocabSize: engine.config.pretrained_config.vocab_size,
    };
    debug(
      1,
      () => `opened ${options.engineDir} on ${device.name}: ${numBlocks} KV blocks of ${plan.tokensPerBlock} tokens`,
    );
    const numLaunches = { forward: plan.phases.forward.length, sample: plan.phases.sample.length };
    return new EngineSession({ device, program, limits, numLaunches });
  } catch (error) {
    await device[Symbol.asyncDispose]();
    throw error;
  }
}

class EngineSession implements OpenedSession {
  readonly limits: SessionLimits;
  readonly numLaunches: Session['numLaunches'];
  readonly overlaps: boolean;
  readonly #device: Device;
  readonly #program: Program;
  readonly #close = track('session');
  #rows = 0;
  #dims = { T: 0, R: 0, L: 0 };
  /** Resolves when the last call's work has been given to the device, in order. */
  #given: Promise<unknown> = Promise.resolve();
  #samples: Promise<Samples> | undefined;

  constructor(parts: Pick<Session, 'limits' | 'numLaunches'> & { device: Device; program: Program }) {
    this.#device = parts.device;
    this.#program = parts.program;
    this.limits = parts.limits;
    this.numLaunches = parts.numLaunches;
    this.overlaps = parts.program.queues === true;
  }

  memory(): ReturnType<OpenedSession['memory']> {
    return { program: this.#program.memory, device: this.#device.memory() };
  }

  /** Does `work` when all that was asked for before is with the device. */
  async #inOrder<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#given.then(work);
    this.#given = done.catch(() => {});
    return await done;
  }

  async forward(batch: Batch, times?: StepTimes): Promise<void> {
    await this.#inOrder(() => this.#forward(batch, times));
  }

  async #forward(batch: Batch, times?: StepTimes): Promise<void> {
    await this.#write(batch);
    await this.#program.run('forward', this.#dims, times?.forward);
  }

  /** Hands the batch to the program, filled up where that pays. */
  async #write(batch: Batch): Promise<void> {
    const { numTokens, numRequests, numLogits } = batch;
    const rows = numTokens === numRequests && numLogits === numRequests ? numRequests : 0;
    // Sizes that differ from step to step would be new to the device each time.
    const filled = rows === 0 ? 0 : (this.#program.fillUp?.(rows) ?? rows);
    if (!this.overlaps) await this.#fillIn(batch);
    this.#writeBatch(batch);
    if (filled > rows) this.#writeNobody(rows, filled);
    this.#rows = numLogits;
    this.#dims = filled > rows ? { T: filled, R: filled, L: filled } : { T: numTokens, R: numRequests, L: numLogits };
  }

  /** Rows [from, to) of a step of one token a request, for requests that are not there: their one token goes into the block after the pool's last. */
  #writeNobody(from: number, to: number): void {
    const program = this.#program;
    const { numBlocks, tokensPerBlock, maxBlocksPerSequence, cacheGroups = [{}] } = this.limits;
    const count = to - from;
    const rows = Int32Array.from({ length: count + 1 }, (_, i) => from + i);
    const zeros = new Int32Array(count);
    for (const name of ['tokens', 'positions', 'topK', 'seedLow', 'seedHigh', 'counter'])
      program.write(name, zeros, count, from);
    program.write('requestOffsets', rows, count + 1, from);
    program.write('contextLengths', new Int32Array(count).fill(1), count, from);
    cacheGroups.forEach((_, group) => {
      const suffix = group === 0 ? '' : `.${group}`;
      for (let row = from; row < to; row++)
        program.write(`blockTables${suffix}`, Int32Array.of(numBlocks), 1, row * maxBlocksPerSequence);
      program.write(`cacheSlots${suffix}`, new Int32Array(count).fill(numBlocks * tokensPerBlock), count, from);
    });
    program.write('logitsRows', rows, count, from);
    for (const name of ['temperature', 'minP']) program.write(name, new Float32Array(count), count, from);
    program.write('topP', new Float32Array(count).fill(1), count, from);
  }

  #writeBatch(batch: Batch): void {
    const { numTokens: T, numRequests: R, numLogits: L, sampling } = batch;
    const program = this.#program;
    program.write('tokens', batch.tokens, T);
    program.write('positions', batch.positions, T);
    program.write('requestOffsets', batch.requestOffsets, R + 1);
    program.write('contextLengths', batch.contextLengths, R);
    program.write('blockTables', batch.blockTables, R * this.limits.maxBlocksPerSequence);
    program.write('cacheSlots', batch.cacheSlots, T);
    batch.otherGroups?.forEach(({ blockTables, cacheSlots }, i) => {
      program.write(`blockTables.${i + 1}`, blockTables, R * this.limits.maxBlocksPerSequence);
      program.write(`cacheSlots.${i + 1}`, cacheSlots, T);
    });
    program.write('logitsRows', batch.logitsRows, L);
    program.write('temperature', sampling.temperature, L);
    program.write('topK', sampling.topK, L);
    program.write('topP', sampling.topP, L);
    program.write('minP', sampling.minP, L);
    program.write('seedLow', sampling.seedLow, L);
    program.write('seedHigh', sampling.seedHigh, L);
    program.write('counter', sampling.counter, L);
  }

  /** Puts tokens in the places of those that the step before samples. */
  async #fillIn({ tokens, numTokens }: Batch): Promise<void> {
    for (let i = 0; i < numTokens; i++) if (tokens[i]! < 0) tokens[i] = (await this.#samples!).tokens[-1 - tokens[i]!]!;
  }

  async readLogits(): Promise<Float32Array> {
    const logits = new Float32Array(this.#rows * this.limits.vocabSize);
    await this.#program.read('logits', logits);
    return logits;
  }

  async writeLogits(logits: Float32Array): Promise<void> {
    await this.#program.overwrite('logits', logits);
  }

  async maskLogits(masks: readonly RowMask[]): Promise<void> {
    const { vocabSize } = this.limits;
    const inPlace = this.#program.view?.('logits');
    const logits = inPlace ?? (await this.readLogits());
    for (const { row, allowed } of masks) maskRow(logits.subarray(row * vocabSize, (row + 1) * vocabSize), allowed);
    if (inPlace === undefined) await this.writeLogits(logits);
  }

  async sample(times?: StepTimes): Promise<Samples> {
    await this.#inOrder(() => this.#sample(times));
    return await this.#samples!;
  }

  async step(batch: Batch): Promise<Samples> {
    return await this.#inOrder(async () => {
      if (this.#program.runStep === undefined) {
        await this.#forward(batch);
        await this.#sample();
      } else {
        await this.#write(batch);
        await this.#program.runStep(this.#dims);
        this.#readSamples();
      }
      return { samples: this.#samples! };
    }).then(({ samples }) => samples);
  }

  /** Starts sampling and the way of its results to the host. */
  async #sample(times?: StepTimes): Promise<void> {
    await this.#program.run('sample', this.#dims, times?.sample);
    this.#readSamples();
  }

  #readSamples(): void {
    const [tokens, logprobs] = [new Int32Array(this.#rows), new Float32Array(this.#rows)];
    const reads = [this.#program.read('token', tokens), this.#program.read('logprob', logprobs)];
    this.#samples = Promise.all(reads).then(() => ({ tokens, logprobs }));
    this.#samples.catch(() => {});
  }

  async copyBlocks(copies: BlockCopies): Promise<void> {
    await this.#inOrder(() => this.#program.copyBlocks(copies));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program[Symbol.asyncDispose]();
    await this.#device[Symbol.asyncDispose]();
    this.#close();
    debug(1, () => 'closed the session');
  }
}
