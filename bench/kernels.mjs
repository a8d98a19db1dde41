// The CPU's kernels in GB/s and GOP/s, as shares of the machine's ceilings measured in turns with them, then steps of a model: `npm run bench kernels [checkpoint or GGUF]`.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));
const { buildEngine, findTarget, openCheckpoint } = await import('typert/engine');
const { openSession } = await import(new URL('../dist/run/session/open.js', import.meta.url).href);
const { nativeFlags } = await import(new URL('../dist/targets/cpu/native.js', import.meta.url).href);
const { findCCompiler } = await import(new URL('../dist/targets/jit/cc-compiler.js', import.meta.url).href);

const model = process.argv[2] ?? join(root, 'models/storyteller-7m');
const folder = mkdtempSync(join(tmpdir(), 'typert-bench-'));

function kernels() {
  const compiler = findCCompiler();
  if (compiler instanceof Error) throw compiler;
  const program = join(folder, 'cpu-kernels');
  execFileSync(compiler.command, [
    ...nativeFlags,
    '-I',
    join(root, 'src/kernels'),
    join(root, 'bench/cpu-kernels.c'),
    '-o',
    program,
    '-lm',
  ]);
  const threads = [...new Set([1, availableParallelism()])].map(String);
  const lines = execFileSync(program, threads, { encoding: 'utf8' }).trim().split('\n');
  console.table(
    lines.map((line) => {
      const { kernel, shape, threads, figure, ceiling, unit } = JSON.parse(line);
      return {
        kernel,
        shape,
        threads,
        figure: `${figure} ${unit}`,
        ceiling,
        share: `${((100 * figure) / ceiling).toFixed(0)} %`,
      };
    }),
  );
}

/** A ragged step of sequences {tokens, past, count, blocks}. */
function batchOf(sequences, limits) {
  const T = sequences.reduce((sum, { count }) => sum + count, 0);
  const R = sequences.length;
  const batch = {
    numTokens: T,
    numRequests: R,
    numLogits: R,
    tokens: new Int32Array(T),
    positions: new Int32Array(T),
    cacheSlots: new Int32Array(T),
    requestOffsets: new Int32Array(R + 1),
    contextLengths: new Int32Array(R),
    blockTables: new Int32Array(R * limits.maxBlocksPerSequence),
    logitsRows: new Int32Array(R),
    sampling: {
      temperature: new Float32Array(R),
      topK: new Int32Array(R),
      topP: new Float32Array(R).fill(1),
      minP: new Float32Array(R),
      seedLow: new Uint32Array(R),
      seedHigh: new Uint32Array(R),
      counter: new Uint32Array(R),
    },
  };
  let at = 0;
  sequences.forEach((sequence, r) => {
    batch.blockTables.set(sequence.blocks, r * limits.maxBlocksPerSequence);
    for (let i = 0; i < sequence.count; i++, at++) {
      const position = sequence.past + i;
      batch.tokens[at] = sequence.tokens[position];
      batch.positions[at] = position;
      batch.cacheSlots[at] =
        sequence.blocks[Math.floor(position / limits.tokensPerBlock)] * limits.tokensPerBlock +
        (position % limits.tokensPerBlock);
    }
    sequence.past += sequence.count;
    batch.requestOffsets[r + 1] = at;
    batch.contextLengths[r] = sequence.past;
    batch.logitsRows[r] = at - 1;
  });
  return batch;
}

async function steps() {
  const engineDir = join(folder, 'engine');
  const checkpoint = await openCheckpoint(model, { cacheDir: folder });
  let start = performance.now();
  await buildEngine({
    checkpoint,
    target: findTarget('cpu'),
    engineDir,
    build: { maxSeqLen: 512, maxNumTokens: 512, maxBatchSize: 8 },
  });
  const built = performance.now() - start;
  start = performance.now();
  const session = await openSession({ engineDir, target: 'cpu', kvCacheConfig: { maxTokens: 8192 } });
  const opened = performance.now() - start;
  const { limits } = session;
  const sequence = (id, count) => ({
    tokens: Array.from({ length: count }, (_, i) => (i * 37 + 11) % limits.vocabSize),
    past: 0,
    count,
    blocks: Array.from({ length: limits.maxBlocksPerSequence }, (_, i) => id * limits.maxBlocksPerSequence + i),
  });
  const step = async (sequences) => {
    await session.forward(batchOf(sequences, limits));
    const { tokens } = await session.sample();
    sequences.forEach((each, r) => {
      each.tokens.push(tokens[r]);
    });
  };
  const median = async (work) => {
    const rates = [];
    for (let i = 0; i < 5; i++) rates.push(await work());
    return rates.sort((a, b) => a - b)[2].toFixed(0);
  };
  const prefill = (count) => async () => {
    const start = performance.now();
    await step([sequence(0, count)]);
    return (count * 1000) / (performance.now() - start);
  };
  const decode = (requests) => async () => {
    const sequences = Array.from({ length: requests }, (_, i) => sequence(i, 16));
    await step(sequences);
    for (const each of sequences) each.count = 1;
    const start = performance.now();
    for (let i = 0; i < 64; i++) await step(sequences);
    return (64 * requests * 1000) / (performance.now() - start);
  };
  console.table({
    'build, ms': built.toFixed(0),
    'open, ms': opened.toFixed(0),
    'prefill of 128, tok/s': await median(prefill(128)),
    'prefill of 511, tok/s': await median(prefill(511)),
    'decode, tok/s': await median(decode(1)),
    'decode of 8 at once, tok/s': await median(decode(8)),
  });
  await session[Symbol.asyncDispose]();
}

try {
  if (process.argv[2] === undefined) kernels();
  await steps();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
