// Checks device sampling against sample/reference.ts on random rows of every kind of filter, then times it.
// node src/kernels/sample/sample.bench.ts [--compile]
import { fromBFloat16Bits, toBFloat16Bits } from '../../base/dtype.ts';
import { Harness } from '../../targets/cuda/harness.bench.ts';
import { sampleLaunches, sampleWorkspace } from './cuda.ts';
import { type RowSampling, sampleRow } from './reference.ts';

const h = new Harness();
let state = 99;
const random = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
const gauss = (): number => Math.sqrt(-2 * Math.log(random() + 1e-9)) * Math.cos(2 * Math.PI * random());

const filters: readonly Partial<RowSampling>[] = [
  { temperature: 0 },
  {},
  { temperature: 0.7 },
  { topK: 1 },
  { topK: 5 },
  { topK: 50, temperature: 1.3 },
  { topP: 0.1 },
  { topP: 0.9 },
  { topP: 0.95, topK: 20 },
  { minP: 0.05 },
  { minP: 0.1, topP: 0.8, topK: 100, temperature: 0.9 },
  { topK: 1000000 },
];

async function check(vocab: number, dtype: 'bfloat16' | 'float32', repeats: number): Promise<void> {
  const rows = filters.length * repeats;
  const values = new Float32Array(rows * vocab).map(() => {
    const value = gauss() * 3;
    return dtype === 'bfloat16' ? fromBFloat16Bits(toBFloat16Bits(value)) : value;
  });
  // Some tokens are banned, as penalties and grammars do.
  for (let i = 0; i < rows * 3; i++) values[Math.floor(random() * values.length)] = Number.NEGATIVE_INFINITY;
  const samplings = Array.from({ length: rows }, (_, r): RowSampling => {
    const base = { temperature: 1, topK: 0, topP: 1, minP: 0, seedLow: r * 77, seedHigh: r, counter: r * 3 };
    return { ...base, ...filters[r % filters.length] };
  });
  const floats = (key: 'temperature' | 'topP' | 'minP') => h.upload(Float32Array.from(samplings, (s) => s[key]));
  const ints = (key: 'topK' | 'seedLow' | 'seedHigh' | 'counter') =>
    h.upload(Int32Array.from(samplings, (s) => s[key]));
  using logits = h.upload(dtype === 'float32' ? values : Uint16Array.from(values, toBFloat16Bits));
  using temperature = floats('temperature');
  using topP = floats('topP');
  using minP = floats('minP');
  using topK = ints('topK');
  using seedLow = ints('seedLow');
  using seedHigh = ints('seedHigh');
  using counter = ints('counter');
  using token = h.allocate(rows * 4);
  using logprob = h.allocate(rows * 4);
  h.poison(token);
  const problem = { dtype, rows, vocab, ld: vocab };
  using workspace = h.allocate(sampleWorkspace(problem));
  const tensors = { logits, temperature, topK, topP, minP, seedLow, seedHigh, counter, token, logprob, workspace };
  const buffers = Object.fromEntries(Object.entries(tensors).map(([name, buffer]) => [name, buffer.ptr]));
  const prepared = [];
  for (const launch of sampleLaunches(problem)) {
    const made = await h.prepare(launch, buffers);
    if (made !== undefined) prepared.push(made);
  }
  if (h.device === undefined) return;
  for (const launch of prepared) launch.issue(h.stream!);
  h.stream!.synchronize();
  const tokens = new Int32Array(rows);
  const logprobs = new Float32Array(rows);
  h.device.download(token.ptr, tokens);
  h.device.download(logprob.ptr, logprobs);
  let differ = 0;
  let worst = 0;
  for (const [r, sampling] of samplings.entries()) {
    const expected = sampleRow(values.subarray(r * vocab, (r + 1) * vocab), sampling);
    if (expected.token !== tokens[r]) {
      differ++;
      if (differ < 6)
        console.log(`  row ${r} ${JSON.stringify(filters[r % filters.length])}: ${tokens[r]} not ${expected.token}`);
    } else worst = Math.max(worst, Math.abs(expected.logprob - logprobs[r]!));
  }
  const us = h.time(prepared, prepared.length * 4) * prepared.length;
  console.log(
    `vocab ${vocab} ${dtype}: ${differ} of ${rows} differ, log-probabilities within ${worst.toExponential(1)}; ${us.toFixed(1)} us for ${rows} rows of all kinds`,
  );
}

/** Microseconds of rows of one kind, as a share of reading the logits once. */
async function time(rows: number, vocab: number, filter: Partial<RowSampling>, read: number): Promise<void> {
  const sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, seedLow: 1, seedHigh: 2, counter: 3, ...filter };
  const floats = (value: number) => h.upload(new Float32Array(rows).fill(value));
  const ints = (value: number) => h.upload(new Int32Array(rows).fill(value));
  // Peaked as a model's logits are: a few tokens stand out.
  const row = Float32Array.from({ length: vocab }, () => gauss() * 1.5);
  for (let i = 0; i < 50; i++) row[Math.floor(random() * vocab)] = 6 + random() * 8;
  const bits = Uint16Array.from(row, toBFloat16Bits);
  const all = new Uint16Array(rows * vocab);
  for (let r = 0; r < rows; r++) all.set(bits, r * vocab);
  const problem = { dtype: 'bfloat16', rows, vocab, ld: vocab } as const;
  using logits = h.upload(all);
  using temperature = floats(sampling.temperature);
  using topP = floats(sampling.topP);
  using minP = floats(sampling.minP);
  using topK = ints(sampling.topK);
  using seedLow = ints(sampling.seedLow);
  using seedHigh = ints(sampling.seedHigh);
  using counter = ints(sampling.counter);
  using token = h.allocate(rows * 4);
  using logprob = h.allocate(rows * 4);
  using workspace = h.allocate(sampleWorkspace(problem));
  const tensors = { logits, temperature, topK, topP, minP, seedLow, seedHigh, counter, token, logprob, workspace };
  const buffers = Object.fromEntries(Object.entries(tensors).map(([name, buffer]) => [name, buffer.ptr]));
  const prepared = [];
  for (const launch of sampleLaunches(problem)) {
    const made = await h.prepare(launch, buffers);
    if (made !== undefined) prepared.push(made);
  }
  if (h.device === undefined) return;
  const us = h.time(prepared, prepared.length * 8) * prepared.length;
  const share = (100 * rows * vocab * 2) / read / us / 1e-6;
  console.log(
    `${rows} rows of ${vocab} ${JSON.stringify(filter)}: ${us.toFixed(1)} us, ${share.toFixed(0)}% of reading once`,
  );
}

await check(1000, 'float32', 8);
await check(4096, 'bfloat16', 8);
await check(32003, 'float32', 2);
await check(128256, 'bfloat16', 1);
const read = h.device === undefined ? 1 : await h.readCeiling();
for (const rows of [1, 12, 512]) {
  for (const filter of [{ temperature: 0 }, {}, { temperature: 0.7 }, { topK: 50 }, { topP: 0.9 }, { minP: 0.05 }])
    await time(rows, 128256, filter, read);
}
