// What quantisation costs, beside llama.cpp: KL divergence of next tokens from fp32 over a fixed text: `npm run bench accuracy [-- --folder DIR]`.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { LLM } from 'typert';
import { installPeer, smollm2 } from './peers/install.mjs';
import { requantise } from './peers/requantise.mjs';

const root = fileURLToPath(new URL('../', import.meta.url));
const built = async (path) => await import(new URL(`../dist/${path}`, import.meta.url).href);
const { openGguf } = await built('define/checkpoint/gguf.js');
const { castTensor, toFloat32 } = await built('define/checkpoint/cast.js');

const { values: options } = parseArgs({
  options: {
    // Where node-llama-cpp and the models are or will be; a temporary folder, removed at the end, by default.
    folder: { type: 'string' },
    threads: { type: 'string', default: '2' },
  },
});
const folder = options.folder ?? mkdtempSync(join(tmpdir(), 'typert-accuracy-'));
mkdirSync(folder, { recursive: true });
const say = (text) => process.stderr.write(`${text}\n`);

/** The model with its matrices in another format. */
function derived(from, dtype) {
  const path = join(folder, `smollm2.${dtype}.gguf`);
  if (existsSync(path)) return path;
  say(`writing ${path}`);
  const source = openGguf(from);
  requantise(from, path, source, dtype, (tensors, name, wanted) => {
    const stored = tensors.tensors.get(name);
    const data = toFloat32({ ...stored, data: tensors.read(name) });
    const floats = {
      dtype: 'float32',
      shape: stored.shape,
      data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
    };
    return castTensor(floats, wanted).data;
  });
  source[Symbol.dispose]();
  return path;
}

/** Log-probabilities of next tokens after each of `tokens`, row by row. */
async function typert(path, tokens, quantConfig) {
  const llm = await LLM.load(path, {
    target: 'cpu',
    cacheDir: join(folder, 'cache'),
    maxBatchSize: 1,
    maxNumTokens: 512,
    maxSeqLen: 512,
    ...(quantConfig === undefined ? {} : { quantConfig }),
  });
  const ids = tokens ?? llm.encode(readFileSync(new URL('accuracy.txt', import.meta.url), 'utf8')).promptTokenIds;
  const [output] = await llm.generate([{ promptTokenIds: ids }], {
    maxTokens: 1,
    temperature: 0,
    returnContextLogits: true,
  });
  await llm[Symbol.asyncDispose]();
  const { data, shape } = output.contextLogits;
  const [rows, vocab] = shape;
  for (let r = 0; r < rows; r++) {
    const row = data.subarray(r * vocab, (r + 1) * vocab);
    const most = row.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
    const total = Math.log(row.reduce((sum, value) => sum + Math.exp(value - most), 0)) + most;
    for (let i = 0; i < vocab; i++) row[i] -= total;
  }
  return { ids, vocab, row: (r) => data.subarray(r * vocab, (r + 1) * vocab) };
}

/** The same of llama.cpp, handed to `each` row by row. */
async function llamaCpp(path, ids, vocab, each) {
  const { getLlama } = await import(pathToFileURL(createRequire(`${folder}/`).resolve('node-llama-cpp')).href);
  const llama = await getLlama({
    gpu: false,
    build: 'never',
    skipDownload: true,
    maxThreads: Number(options.threads),
    logLevel: 'error',
  });
  const model = await llama.loadModel({ modelPath: path, gpuLayers: 0 });
  const context = await model.createContext({ contextSize: 512, batchSize: 512, threads: Number(options.threads) });
  const sequence = context.getSequence();
  const next = { probabilities: true, options: { temperature: 1, topK: 0, topP: 1, minP: 0 } };
  for (let from = 0; from < ids.length; from += 16) {
    const part = Array.from(ids.slice(from, from + 16), (id) => [id, { generateNext: next }]);
    const results = await sequence.controlledEvaluate(part);
    results.forEach((result, i) => {
      const row = new Float32Array(vocab).fill(Math.log(1e-30));
      for (const [token, p] of result.next.probabilities) row[token] = Math.log(Math.max(p, 1e-30));
      each(from + i, row);
    });
  }
  await model.dispose();
}

/** Divergence of log-probabilities q from p, and whether their likeliest tokens are the same. */
function compare(p, q) {
  let divergence = 0;
  let [topP, topQ] = [0, 0];
  for (let i = 0; i < p.length; i++) {
    divergence += Math.exp(p[i]) * (p[i] - q[i]);
    if (p[i] > p[topP]) topP = i;
    if (q[i] > q[topQ]) topQ = i;
  }
  return { divergence: Math.max(0, divergence), same: topP === topQ };
}
const mean = (list, of) => list.reduce((sum, item) => sum + of(item), 0) / list.length;
/** By how much the means of two lists differ, in standard errors of what differs row by row: beyond 2 is more than chance. */
function deviation(a, b) {
  const differences = a.map(({ divergence }, i) => divergence - b[i].divergence);
  const middle = mean(differences, (value) => value);
  const variance = differences.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (differences.length - 1);
  return middle / Math.sqrt(variance / differences.length);
}
const summary = (rows) => ({ kl: mean(rows, (row) => row.divergence), same: mean(rows, (row) => (row.same ? 1 : 0)) });

try {
  const peer = installPeer(folder);
  const original = smollm2(folder);
  const full = derived(original, 'float32');
  say('fp32');
  const reference = await typert(full);
  const { ids, vocab } = reference;
  const rowsOf = (other) => Array.from(ids, (_, r) => compare(reference.row(r), other.row(r)));
  const rows = [];
  const add = (row) => {
    rows.push(row);
    say(JSON.stringify(row));
  };
  for (const [format, path] of [
    ['q8_0', derived(original, 'q8_0')],
    ['q4_0', derived(original, 'q4_0')],
    ['q4_1', original],
  ]) {
    const ours = rowsOf(await typert(path, ids));
    const whole = summary(ours);
    const floats = summary(rowsOf(await typert(path, ids, { activations: 'float' })));
    const theirs = [];
    await llamaCpp(path, ids, vocab, (r, row) => theirs.push(compare(reference.row(r), row)));
    const llama = summary(theirs);
    add({
      file: format,
      typert: whole,
      'typert, float activations': floats,
      'llama.cpp': llama,
      ratio: whole.kl / llama.kl,
      deviation: deviation(ours, theirs),
    });
  }
  for (const quantConfig of [
    { quantAlgo: 'W8A16' },
    { quantAlgo: 'W8A16', groupSize: 64, hasZeroPoint: true },
    { quantAlgo: 'W4A16' },
    { quantAlgo: 'W4A16', hasZeroPoint: true },
    { quantAlgo: 'W4A16', groupSize: 64 },
    { quantAlgo: 'W4A16', groupSize: 64, hasZeroPoint: true },
  ]) {
    add({ weightOnly: quantConfig, typert: summary(rowsOf(await typert(full, ids, quantConfig))) });
  }
  const shown = (value) =>
    value === undefined ? '' : `${value.kl.toExponential(2)} (${(100 * value.same).toFixed(1)} %)`;
  console.table(
    rows.map((row) => ({
      weights: row.file ?? Object.values(row.weightOnly).join(' '),
      typert: shown(row.typert),
      'float activations': shown(row['typert, float activations']),
      'llama.cpp': shown(row['llama.cpp']),
      ratio: row.ratio === undefined ? '' : `${row.ratio.toFixed(2)} (${row.deviation.toFixed(1)} σ)`,
    })),
  );
  mkdirSync(join(root, 'bench/results'), { recursive: true });
  writeFileSync(
    join(root, 'bench/results/accuracy.json'),
    `${JSON.stringify({ model: 'SmolLM2-135M-Instruct', tokens: ids.length, 'node-llama-cpp': peer, rows }, null, 2)}\n`,
  );
} finally {
  if (options.folder === undefined) rmSync(folder, { recursive: true, force: true });
}
process.exit(0);
