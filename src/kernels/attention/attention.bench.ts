// Checks the attention kernels against the plain one (and that one against float64 here), over ragged batches with past context and unused cache
// slots that hold NaN; then times decode and prefill at Llama-3-8B's shape.
// node src/kernels/attention/attention.bench.ts [--compile] [--part=check,time]
import { type FloatDType, fromBFloat16Bits, toBFloat16Bits, toFloat16Bits } from '../../base/dtype.ts';
import { Harness } from '../../targets/cuda/harness.bench.ts';
import type { DevicePtr } from '../../targets/ffi/cuda-driver.ts';
import {
  type AttentionConfig,
  type AttentionProblem,
  attentionKernel,
  attentionLaunch,
  attentionWorkspace,
  decodeCandidates,
  decodeRows,
  prefillCandidates,
} from './cuda.ts';

const h = new Harness();
let seed = 12345;
const random = (): number => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return seed / 2 ** 32;
};
const randomInt = (low: number, high: number): number => low + Math.floor(random() * (high - low + 1));

interface Sequence {
  readonly past: number;
  readonly fresh: number;
}
type Shape = Omit<AttentionProblem, 'tokens' | 'requests' | 'ldq' | 'ldy' | 'maxBlocksPerSequence' | 'numBlocks'>;

function batchOf(shape: Shape, sequences: readonly Sequence[]) {
  const tokens = sequences.reduce((sum, { fresh }) => sum + fresh, 0);
  const blocksOf = sequences.map(({ past, fresh }) => Math.ceil((past + fresh) / shape.tokensPerBlock));
  const maxBlocks = Math.max(...blocksOf) + 1;
  const total = blocksOf.reduce((a, b) => a + b, 0) + 2;
  const ids = Array.from({ length: total }, (_, i) => i);
  for (let i = total - 1; i > 0; i--) {
    const j = randomInt(0, i);
    [ids[i], ids[j]] = [ids[j]!, ids[i]!];
  }
  const blockTables = new Int32Array(sequences.length * maxBlocks);
  let next = 0;
  for (const [r, count] of blocksOf.entries())
    for (let b = 0; b < count; b++) blockTables[r * maxBlocks + b] = ids[next++]!;
  const requestOffsets = new Int32Array(sequences.length + 1);
  const positions = new Int32Array(tokens);
  for (const [r, { past, fresh }] of sequences.entries()) {
    requestOffsets[r + 1] = requestOffsets[r]! + fresh;
    for (let i = 0; i < fresh; i++) positions[requestOffsets[r]! + i] = past + i;
  }
  const contextLengths = Int32Array.from(sequences, ({ past, fresh }) => past + fresh);
  const problem: AttentionProblem = {
    ...shape,
    tokens,
    requests: sequences.length,
    ldq: shape.heads * shape.headDim + 16,
    ldy: shape.heads * shape.valueDim + 8,
    maxBlocksPerSequence: maxBlocks,
    numBlocks: total,
  };
  return { problem, positions, requestOffsets, contextLengths, blockTables };
}

/** Where a key and a value begin in the cache, in elements. */
function cacheAt(problem: Shape, block: number, head: number, slot: number): { key: number; value: number } {
  const { kvHeads, tokensPerBlock, headDim, valueDim } = problem;
  const base = block * kvHeads * tokensPerBlock * (headDim + valueDim);
  const row = head * tokensPerBlock + slot;
  return { key: base + row * headDim, value: base + kvHeads * tokensPerBlock * headDim + row * valueDim };
}

async function check(shape: Shape, sequences: readonly Sequence[]): Promise<number> {
  const { problem, ...arrays } = batchOf(shape, sequences);
  const { dtype, headDim, valueDim, kvHeads, heads, tokensPerBlock, tokens, ldq, ldy } = problem;
  const bits = dtype === 'float16' ? toFloat16Bits : toBFloat16Bits;
  // Only the keys and values of tokens that are there are numbers.
  const cache = new Uint16Array(problem.numBlocks * kvHeads * tokensPerBlock * (headDim + valueDim)).fill(0xffff);
  for (const [r, { past, fresh }] of sequences.entries()) {
    for (let key = 0; key < past + fresh; key++) {
      const block = arrays.blockTables[r * problem.maxBlocksPerSequence + Math.floor(key / tokensPerBlock)]!;
      for (let head = 0; head < kvHeads; head++) {
        const at = cacheAt(problem, block, head, key % tokensPerBlock);
        for (let d = 0; d < headDim; d++) cache[at.key + d] = bits(random() * 2 - 1);
        for (let d = 0; d < valueDim; d++) cache[at.value + d] = bits(random() * 2 - 1);
      }
    }
  }
  const queries = new Uint16Array(tokens * ldq).map(() => bits((random() * 2 - 1) * 3));
  const sinks = Float32Array.from({ length: heads }, () => random() * 4);
  const slopes = Float32Array.from({ length: heads }, () => random() * 0.05);
  using q = h.upload(queries);
  using kv = h.upload(cache);
  using positions = h.upload(arrays.positions);
  using requestOffsets = h.upload(arrays.requestOffsets);
  using contextLengths = h.upload(arrays.contextLengths);
  using blockTables = h.upload(arrays.blockTables);
  using sinkValues = h.upload(sinks);
  using slopeValues = h.upload(slopes);
  using y = h.allocate(tokens * ldy * 2);
  using expected = h.allocate(tokens * ldy * 2);
  const buffers = {
    q: q.ptr,
    cache: kv.ptr,
    positions: positions.ptr,
    requestOffsets: requestOffsets.ptr,
    contextLengths: contextLengths.ptr,
    blockTables: blockTables.ptr,
    sinks: sinkValues.ptr,
    slopes: slopeValues.ptr,
  };
  h.poison(expected);
  await h.run(attentionLaunch(problem, { kind: 'plain' }, 0), { ...buffers, y: expected.ptr });
  let failures = 0;
  const report = async (what: string): Promise<void> => {
    const { error, worst } = await h.compare(dtype, y.ptr, expected.ptr, tokens, heads * valueDim, ldy, ldy);
    if (error < (dtype === 'bfloat16' ? 6e-3 : 1e-3)) return;
    failures++;
    console.log(`WRONG ${what} ${JSON.stringify({ ...shape, sequences })} error ${error} worst ${worst}`);
  };
  const group = heads / kvHeads;
  const few = sequences.filter(({ fresh }) => fresh * group <= decodeRows).length;
  if (few === 0 && h.device !== undefined && sequences.length === 1 && tokens * headDim < 20000) {
    failures += compareHost(problem, arrays, cache, queries, expected.ptr);
  }
  for (const decode of few > 0 ? decodeCandidates(problem, h.arch) : [undefined]) {
    for (const prefill of few < sequences.length ? prefillCandidates(problem, h.arch) : [undefined]) {
      h.poison(y);
      using partial = h.allocate(decode === undefined ? 4 : attentionWorkspace(problem, decode).partial + 4);
      using counters = h.allocate(4 * problem.requests * kvHeads);
      h.stream?.fill(counters.ptr, 0, counters.bytes);
      const all = { ...buffers, y: y.ptr, partial: partial.ptr, counters: counters.ptr };
      if (decode !== undefined) await h.run(attentionLaunch(problem, decode, 0), all);
      if (prefill !== undefined)
        await h.run(attentionLaunch(problem, prefill, decode === undefined ? 0 : decodeRows), all);
      await report(`${JSON.stringify(decode)} ${JSON.stringify(prefill)}`);
    }
  }
  return failures;
}

/** The plain kernel against float64, for one request without flags. */
function compareHost(
  problem: AttentionProblem,
  arrays: { readonly blockTables: Int32Array; readonly positions: Int32Array },
  cache: Uint16Array,
  queries: Uint16Array,
  expected: DevicePtr,
): number {
  const { dtype, heads, kvHeads, headDim, valueDim, tokensPerBlock, scale, tokens, ldq, ldy, window } = problem;
  if (dtype !== 'bfloat16' || problem.sinks || problem.alibi || problem.softcap !== undefined || problem.chunk)
    return 0;
  h.stream!.synchronize();
  const got = new Uint16Array(tokens * ldy);
  h.device!.download(expected, got);
  let worst = 0;
  const at = (key: number, head: number): { key: number; value: number } =>
    cacheAt(problem, arrays.blockTables[Math.floor(key / tokensPerBlock)]!, head, key % tokensPerBlock);
  for (let t = 0; t < tokens; t += 7) {
    const position = arrays.positions[t]!;
    for (let head = 0; head < heads; head++) {
      const kv = Math.floor(head / (heads / kvHeads));
      const first = window === undefined ? 0 : Math.max(0, position - window + 1);
      const scores: number[] = [];
      for (let key = first; key <= position; key++) {
        let score = 0;
        for (let d = 0; d < headDim; d++)
          score +=
            fromBFloat16Bits(queries[t * ldq + head * headDim + d]!) * fromBFloat16Bits(cache[at(key, kv).key + d]!);
        scores.push(score * scale);
      }
      const max = Math.max(...scores);
      const total = scores.reduce((sum, score) => sum + Math.exp(score - max), 0);
      for (let d = 0; d < valueDim; d += 5) {
        let value = 0;
        for (const [i, score] of scores.entries())
          value += (Math.exp(score - max) / total) * fromBFloat16Bits(cache[at(first + i, kv).value + d]!);
        worst = Math.max(worst, Math.abs(value - fromBFloat16Bits(got[t * ldy + head * valueDim + d]!)));
      }
    }
  }
  if (worst < 4e-3) return 0;
  console.log(`WRONG plain against float64: ${worst} ${JSON.stringify(problem)}`);
  return 1;
}

const llama: Shape = {
  dtype: 'bfloat16',
  heads: 32,
  kvHeads: 8,
  headDim: 128,
  valueDim: 128,
  tokensPerBlock: 32,
  scale: 128 ** -0.5,
  sinks: false,
  alibi: false,
};

async function checks(): Promise<void> {
  let failures = 0;
  const variants: readonly Partial<Shape>[] = [
    {},
    { window: 37 },
    { chunk: 48 },
    { softcap: 5, sinks: true, alibi: true },
    { sinks: true, window: 100 },
  ];
  const dims = [
    [128, 8, 2],
    [64, 4, 4],
    [64, 12, 2],
    [128, 14, 2],
    [80, 4, 2],
    [256, 4, 2],
    [16, 6, 2],
    [48, 4, 4],
    [192, 4, 4, 128],
  ] as const;
  for (const [headDim, heads, kvHeads, valueDim = headDim] of dims) {
    for (const [i, variant] of variants.entries()) {
      const dtype: FloatDType = headDim === 64 && i === 1 ? 'float16' : 'bfloat16';
      const tokensPerBlock = [32, 16, 64, 128, 8][i]!;
      const shape: Shape = {
        ...llama,
        dtype,
        headDim,
        valueDim,
        heads,
        kvHeads,
        tokensPerBlock,
        scale: headDim ** -0.5,
        ...variant,
      };
      failures += await check(shape, [{ past: 0, fresh: 70 }]);
      failures += await check(shape, [{ past: 200, fresh: 1 }]);
      failures += await check(
        shape,
        Array.from({ length: 5 }, () => ({ past: randomInt(0, 900), fresh: 1 })),
      );
      failures += await check(shape, [
        { past: 13, fresh: 1 },
        { past: 300, fresh: 131 },
        { past: 0, fresh: 1 },
        { past: 511, fresh: 2 },
        { past: 0, fresh: 257 },
        { past: 1, fresh: 33 },
      ]);
    }
  }
  console.log(failures === 0 ? 'all attentions agree' : `${failures} WRONG`);
}

async function time(
  sequences: readonly Sequence[],
  phase: 'decode' | 'prefill',
  shape: Shape,
  ceilings: readonly number[],
): Promise<void> {
  const { problem: ragged, ...arrays } = batchOf(shape, sequences);
  const width = shape.heads * shape.headDim;
  const problem = { ...ragged, ldq: width, ldy: width };
  const layerBytes = problem.numBlocks * 2 * problem.kvHeads * problem.tokensPerBlock * problem.headDim * 2;
  const layers = phase === 'prefill' ? 1 : Math.max(2, Math.min(32, Math.ceil(4e8 / layerBytes)));
  using cache = await h.random('bfloat16', (layers * layerBytes) / 2, 5);
  using q = await h.random('bfloat16', problem.tokens * width, 6);
  using y = h.allocate(problem.tokens * width * 2);
  using positions = h.upload(arrays.positions);
  using requestOffsets = h.upload(arrays.requestOffsets);
  using contextLengths = h.upload(arrays.contextLengths);
  using blockTables = h.upload(arrays.blockTables);
  using counters = h.allocate(4 * problem.requests * problem.kvHeads);
  h.stream?.fill(counters.ptr, 0, counters.bytes);
  const found: string[] = [];
  let configs: AttentionConfig[] =
    phase === 'decode' ? decodeCandidates(problem, h.arch) : prefillCandidates(problem, h.arch);
  if (phase === 'decode')
    configs = configs.flatMap((config) =>
      config.kind === 'decode' && config.splits > 1
        ? [config, { ...config, splits: Math.ceil(config.splits / 2) }, { ...config, splits: config.splits * 2 }]
        : [config],
    );
  for (const config of configs) {
    using partial = h.allocate(attentionWorkspace(problem, config).partial + 4);
    const launches = [];
    for (let i = 0; i < layers; i++) {
      const prepared = await h.prepare(attentionLaunch(problem, config, 0), {
        q: q.ptr,
        y: y.ptr,
        cache: (cache.ptr + BigInt(i * layerBytes)) as DevicePtr,
        positions: positions.ptr,
        requestOffsets: requestOffsets.ptr,
        contextLengths: contextLengths.ptr,
        blockTables: blockTables.ptr,
        partial: partial.ptr,
        counters: counters.ptr,
      });
      if (prepared !== undefined) launches.push(prepared);
    }
    if (launches.length === 0) continue;
    const us = h.time(launches, phase === 'decode' ? Math.max(layers, 16) : 4, 5);
    const name = `${attentionKernel(problem, config).name}${config.kind === 'decode' ? ` splits=${config.splits}` : ''}`;
    if (phase === 'decode') {
      const bytes =
        sequences.reduce((sum, { past, fresh }) => sum + past + fresh, 0) * 2 * problem.kvHeads * problem.headDim * 2;
      found.push(
        `${name} ${us.toFixed(2)} us ${(bytes / us / 1e3).toFixed(0)} GB/s ${((100 * bytes) / us / 1e-6 / ceilings[0]!).toFixed(1)}%`,
      );
    } else {
      const pairs = sequences.reduce((sum, { past, fresh }) => sum + fresh * past + (fresh * (fresh + 1)) / 2, 0);
      const flop = 4 * pairs * problem.heads * problem.headDim;
      found.push(
        `${name} ${us.toFixed(1)} us ${(flop / us / 1e6).toFixed(0)} TFLOP/s ${((100 * flop) / us / 1e-6 / ceilings[1]!).toFixed(1)}%`,
      );
    }
  }
  const lengths = sequences.map(({ past, fresh }) => `${past}+${fresh}`);
  console.log(`${phase} ${lengths.length}x ${lengths[0]} d=${shape.headDim}: ${found.join(' | ')}`);
}

const part = process.argv.find((arg) => arg.startsWith('--part='))?.slice(7) ?? 'check,time';
if (part.includes('check')) await checks();
if (part.includes('time')) {
  const ceilings = [await h.readCeiling(), await h.productCeiling()];
  console.log(`read ${(ceilings[0]! / 1e12).toFixed(3)} TB/s, product ${(ceilings[1]! / 1e12).toFixed(1)} TFLOP/s`);
  const many = (count: number, past: number, fresh: number): Sequence[] =>
    Array.from({ length: count }, () => ({ past, fresh }));
  for (const [count, length] of [
    [1, 128],
    [1, 2048],
    [1, 32768],
    [8, 1024],
    [64, 1024],
    [64, 4096],
    [256, 512],
  ] as const)
    await time(many(count, length - 1, 1), 'decode', llama, ceilings);
  for (const headDim of [128, 64]) {
    const shape: Shape = { ...llama, headDim, valueDim: headDim, scale: headDim ** -0.5 };
    for (const sequences of [many(1, 0, 2048), many(1, 0, 8192), many(8, 0, 1024), many(1, 6144, 2048)])
      await time(sequences, 'prefill', shape, ceilings);
  }
}
console.log(`${h.compiled} kernel uses compiled`);
