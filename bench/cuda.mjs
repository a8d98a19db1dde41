// Llama-3-8B's and Qwen3-0.6B's shapes on a GPU through the public API, beside transformers in the same run: `npm run bench cuda [-- --out DIR --quick --no-peer]`.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { ratioChart } from './peers/chart.mjs';

const { values: options } = parseArgs({
  options: {
    out: { type: 'string', default: fileURLToPath(new URL('./results/', import.meta.url)) },
    quick: { type: 'boolean', default: false },
    'no-peer': { type: 'boolean', default: false },
  },
});
const cli = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const peer = fileURLToPath(new URL('./peers/hf_transformers.py', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'typert-bench-cuda-'));

const { 'llama-3-8b': llama, 'qwen3-0.6b': qwen } = JSON.parse(
  readFileSync(new URL('./shapes.json', import.meta.url), 'utf8'),
);

// Output tokens a second. vLLM 0.25.0: measured on an H200 with the same dummy weights; TensorRT-LLM: its published H100 figures in 16 bits.
const published = {
  '128/128': { vllmH200: 16036, trtllmH100: 15572 },
  '1000/1000': { vllmH200: 8615, trtllmH100: 7055 },
  '2048/128': { vllmH200: 2043, trtllmH100: 1904 },
};

function shape(name, config) {
  const path = join(folder, name);
  mkdirSync(path);
  writeFileSync(join(path, 'config.json'), JSON.stringify(config));
  return path;
}

function typert(...args) {
  const start = performance.now();
  const { status, stdout, stderr } = spawnSync(process.execPath, [cli, ...args], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (status !== 0) throw new Error(`typert ${args.join(' ')}: ${stderr}`);
  return { stdout, seconds: (performance.now() - start) / 1e3 };
}

function bench(kind, engine, requests, input, output) {
  const size = ['--num-requests', requests, '--input-len', input, '--output-len', output].map(String);
  return JSON.parse(typert('bench', kind, engine, ...size, '--json').stdout).performance;
}

const results = { device: typert('doctor').stdout.match(/target cuda\s+(.*)/)?.[1] ?? 'unknown', throughput: {} };
const rows = [];
try {
  const dummy = ['--load-format', 'dummy', '--target', 'cuda'];
  const llamaDir = shape('llama', llama);
  const engine = join(folder, 'engine');
  const limits = ['--max-batch-size', '1024', '--max-num-tokens', '8192', '--max-seq-len', '4096'];
  results.buildUntunedSeconds = typert(
    'build',
    llamaDir,
    ...dummy,
    ...limits,
    '--no-tune',
    '-o',
    `${engine}-thumb`,
  ).seconds;
  results.buildTunedSeconds = typert('build', llamaDir, ...dummy, ...limits, '-o', engine).seconds;
  const sizes = options.quick
    ? [[1000, 128, 128]]
    : [
        [2000, 128, 128],
        [400, 2048, 128],
        [600, 1000, 1000],
      ];
  for (const [requests, input, output] of sizes) {
    const name = `${input}/${output}`;
    const measured = bench('throughput', engine, requests, input, output);
    results.throughput[name] = { ...measured, published: published[name] };
    const speed = measured.system_output_throughput_tok_s;
    rows.push({
      label: `${name} / TensorRT-LLM, H100, published`,
      ratio: speed / published[name].trtllmH100,
      wanted: 1,
    });
    rows.push({ label: `${name} / vLLM 0.25, H200, measured`, ratio: speed / published[name].vllmH200, wanted: 1.1 });
    process.stdout.write(`${name}: ${speed.toFixed(0)} output tokens/s\n`);
  }
  const latency = bench('latency', engine, 5, 128, 128);
  results.latencyLlama = latency;
  results.prompt2048 = bench('latency', engine, 5, 2048, 2);
  const qwenEngine = join(folder, 'qwen');
  typert('build', shape('qwen-shape', qwen), ...dummy, '--max-seq-len', '4096', '-o', qwenEngine);
  results.latencyQwen = bench('latency', qwenEngine, 5, 128, 256);
  const tokens = (report) => 1e3 / report.tpot_percentiles_ms.p50;
  process.stdout.write(
    `Llama-3-8B, one request: ${tokens(latency).toFixed(1)} tokens/s; Qwen3-0.6B: ${tokens(results.latencyQwen).toFixed(0)}\n`,
  );
  if (!options['no-peer']) {
    const { status, stdout, stderr } = spawnSync('python3', [peer, llamaDir], { encoding: 'utf8' });
    if (status !== 0) process.stderr.write(`no transformers here: ${stderr.split('\n').at(-2)}\n`);
    else {
      results.transformers = JSON.parse(stdout.trim().split('\n').at(-1));
      const { decode_tok_s, prefill_2048_ms } = results.transformers;
      rows.push({
        label: 'decode, batch 1 / transformers, same run',
        ratio: tokens(latency) / decode_tok_s,
        wanted: 1,
      });
      const ttft = results.prompt2048.ttft_percentiles_ms.p50;
      rows.push({ label: 'prompt of 2,048 / transformers, same run', ratio: prefill_2048_ms / ttft, wanted: 1 });
      process.stdout.write(
        `transformers: ${decode_tok_s.toFixed(1)} tokens/s, prompt of 2,048 in ${prefill_2048_ms.toFixed(1)} ms (TypeRT ${ttft.toFixed(1)})\n`,
      );
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
mkdirSync(options.out, { recursive: true });
writeFileSync(join(options.out, 'cuda-llama-3-8b.json'), `${JSON.stringify(results, null, 2)}\n`);
writeFileSync(
  join(options.out, 'cuda-llama-3-8b.svg'),
  ratioChart(`Llama-3-8B's shape, bfloat16, on ${results.device.split(',')[0]}`, rows),
);
