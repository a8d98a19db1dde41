// Whole steps of a model's shape on the GPU with random weights: decode at several batch sizes, prompts of several lengths, each as a share of its floor
// (bytes at the read rate, products at the matrix rate, both measured in the same run).
// node bench/cuda-steps.ts [llama-3-8b|qwen3-0.6b] [--decode] [--prompts] [--tune]   (--decode: no prompts, --prompts: nothing else)

import { compile } from '../src/compile/build.ts';
import { Harness } from '../src/targets/cuda/harness.bench.ts';
import { cudaTarget } from '../src/targets/cuda/target.ts';
import type { Program } from '../src/targets/target.ts';
import { describedCheckpoint, type ShapeName, shapes } from './shapes.ts';

const name = (process.argv[2] ?? 'llama-3-8b') as ShapeName;
const shape = shapes[name];

const h = new Harness();
const read = await h.readCeiling();
const rate = await h.productCeiling();
console.log(`${name}: read ${(read / 1e12).toFixed(3)} TB/s, product ${(rate / 1e12).toFixed(1)} TFLOP/s`);
const maxSeqLen = 9216;
const compiled = compile(describedCheckpoint(name), cudaTarget, {
  dtype: 'bfloat16',
  maxSeqLen,
  maxNumTokens: 8192,
  maxBatchSize: 256,
});
// Tactics timed as a build does, cuBLASLt's among them; else the heuristics'.
const prepared = process.argv.includes('--tune')
  ? await cudaTarget.prepare!(compiled.plan, { progress: () => {} })
  : { plan: compiled.plan, tensors: new Map<string, Uint8Array>() };
const { plan } = prepared;
const largest = Math.max(
  ...plan.tensors
    .filter((t) => t.storage.kind === 'weight')
    .map((t) => t.shape.reduce<number>((a, b) => a * (b as number), 4)),
);
const noise = new Uint16Array(largest / 2);
for (let i = 0; i < 1 << 20; i++)
  noise[i] = (Math.random() < 0.5 ? 0x8000 : 0) | (0x3c00 + Math.floor(Math.random() * 0x100));
for (let filled = 1 << 20; filled < noise.length; filled *= 2)
  noise.copyWithin(filled, 0, Math.min(filled, noise.length - filled));
const sizes = new Map(plan.tensors.map((t) => [t.name, t]));
await using device = await cudaTarget.open();
const start = performance.now();
const numBlocks = 64 * 64;
await using program: Program = await device.load({
  plan,
  numBlocks,
  readWeight: (key) => {
    const kernel = prepared.tensors.get(key);
    if (kernel !== undefined) return kernel;
    const tensor = sizes.get(key)!;
    const count = tensor.shape.reduce<number>((a, b) => a * (b as number), 1);
    return new Uint8Array(noise.buffer, 0, count * (tensor.dtype === 'float32' ? 4 : 2));
  },
});
console.log(
  `loaded ${(program.memory.weights / 1e9).toFixed(2)} GB in ${((performance.now() - start) / 1e3).toFixed(1)} s; ${plan.phases.forward.length} steps`,
);

const perBlock = plan.tokensPerBlock;
async function step(requests: number, past: number, fresh: number): Promise<void> {
  const T = requests * fresh;
  const tokens = Int32Array.from({ length: T }, () => Math.floor(Math.random() * shape.vocab_size));
  const positions = Int32Array.from({ length: T }, (_, i) => past + (i % fresh));
  const blocksEach = Math.ceil((past + fresh) / perBlock);
  const tables = new Int32Array(requests * plan.maxBlocksPerSequence);
  const slots = new Int32Array(T);
  for (let r = 0; r < requests; r++) {
    for (let b = 0; b < blocksEach; b++) tables[r * plan.maxBlocksPerSequence + b] = (r * blocksEach + b) % numBlocks;
    for (let i = 0; i < fresh; i++) {
      const position = past + i;
      slots[r * fresh + i] =
        tables[r * plan.maxBlocksPerSequence + Math.floor(position / perBlock)]! * perBlock + (position % perBlock);
    }
  }
  const rows = Int32Array.from({ length: requests }, (_, r) => (r + 1) * fresh - 1);
  const L = requests;
  program.write('tokens', tokens, T);
  program.write('positions', positions, T);
  program.write(
    'requestOffsets',
    Int32Array.from({ length: requests + 1 }, (_, r) => r * fresh),
    requests + 1,
  );
  program.write('contextLengths', new Int32Array(requests).fill(past + fresh), requests);
  program.write('blockTables', tables, tables.length);
  program.write('cacheSlots', slots, T);
  program.write('logitsRows', rows, L);
  program.write('temperature', new Float32Array(L), L);
  program.write('topK', new Int32Array(L), L);
  program.write('topP', new Float32Array(L).fill(1), L);
  program.write('minP', new Float32Array(L), L);
  for (const key of ['seedLow', 'seedHigh', 'counter']) program.write(key, new Uint32Array(L), L);
  await program.run('forward', { T, R: requests, L });
  await program.run('sample', { T, R: requests, L });
}

const weightBytes = plan.tensors
  .filter((t) => t.storage.kind === 'weight' && (shape.tie_word_embeddings || !t.name.includes('embed')))
  .reduce((sum, t) => sum + t.shape.reduce<number>((a, b) => a * (b as number), 2), 0);
const { hidden_size: hidden, num_hidden_layers: layers } = shape;
const kvBytes = layers * 2 * shape.num_key_value_heads * shape.head_dim * 2;
const headBytes = shape.vocab_size * hidden * 2;
for (const [requests, past, fresh] of [
  [1, 127, 1],
  [1, 1023, 1],
  [8, 127, 1],
  [64, 1023, 1],
  [1, 0, 2048],
  [1, 0, 8192],
] as const) {
  if (process.argv.includes(fresh > 1 ? '--decode' : '--prompts')) continue;
  const token = new Int32Array(requests);
  for (let i = 0; i < 3; i++) await step(requests, past, fresh);
  await program.read('token', token);
  const rounds = fresh > 1 ? 4 : 30;
  const times: number[] = [];
  for (let repeat = 0; repeat < 3; repeat++) {
    const begin = performance.now();
    for (let i = 0; i < rounds; i++) {
      await program.run('forward', { T: requests * fresh, R: requests, L: requests });
      await program.run('sample', { T: requests * fresh, R: requests, L: requests });
    }
    await program.read('token', token);
    times.push((performance.now() - begin) / rounds);
  }
  const ms = Math.min(...times);
  const T = requests * fresh;
  const bytes = weightBytes + requests * (past + fresh) * kvBytes;
  const dense = (2 * T * (weightBytes - headBytes)) / 2 + (2 * requests * headBytes) / 2;
  const attention =
    4 * layers * shape.num_attention_heads * shape.head_dim * requests * (fresh * past + (fresh * (fresh + 1)) / 2);
  const floor = Math.max(bytes / read, (dense + attention) / rate) * 1e3;
  const begin = performance.now();
  for (let i = 0; i < 10; i++) {
    await step(requests, past, fresh);
    await program.read('token', token);
  }
  const latency = (performance.now() - begin) / 10;
  console.log(
    `${requests} x ${past}+${fresh}: ${ms.toFixed(3)} ms = ${((100 * floor) / ms).toFixed(1)}% of the floor (${floor.toFixed(3)} ms), ${((1e3 * T) / ms).toFixed(0)} tok/s; with inputs and result ${latency.toFixed(3)} ms`,
  );
}
