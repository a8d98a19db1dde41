// Checks device sampling against sample/reference.ts on random rows of every kind of filter, then times it.
// node src/kernels/sample/sample.bench.ts [--compile]
import { fromBFloat16Bits, toBFloat16Bits } from '../../base/dtype.ts';
import { Harness } from '../../targets/cuda/harness.bench.ts';
import { sampleLaunch } from './cuda.ts';
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
  const launch = sampleLaunch({ dtype, rows, vocab, ld: vocab });
  const tensors = { logits, temperature, topK, topP, minP, seedLow, seedHigh, counter, token, logprob };
  const buffers = Object.fromEntries(Object.entries(tensors).map(([name, buffer]) => [name, buffer.ptr]));
  const prepared = await h.prepare(launch, buffers);
  if (prepared === undefined || h.device === undefined) return;
  prepared.issue(h.stream!);
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
  const us = h.time([prepared], 4);
  console.log(
    `vocab ${vocab} ${dtype}: ${differ} of ${rows} differ, log-probabilities within ${worst.toExponential(1)}; ${us.toFixed(1)} us for ${rows} rows of all kinds`,
  );
}

await check(1000, 'float32', 8);
await check(4096, 'bfloat16', 8);
await check(32003, 'float32', 2);
await check(128256, 'bfloat16', 1);
