// What a build may cost and what it leaves when it cannot finish: memory beyond the process of at most three times the largest tensor; nothing after a full disk or a kill.
import { spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { typert } from '../support/cli.ts';
import { goldenPath } from '../support/golden.ts';
import { temporaryFolder } from '../support/temporary.ts';

const folder = temporaryFolder();
const env = { TYPERT_CACHE: join(folder, 'cache'), TYPERT_TARGET: 'reference' };
const dist = fileURLToPath(new URL('../../dist', import.meta.url));

/** A Llama checkpoint of zeros: its file is a hole, so it costs no disk. */
function hollowCheckpoint(
  name: string,
  hidden: number,
  vocab: number,
  layers: number,
): { path: string; largest: number; total: number } {
  const path = join(folder, name);
  mkdirSync(path);
  const inner = 2 * hidden;
  const shapes: Record<string, number[]> = {
    'model.embed_tokens.weight': [vocab, hidden],
    'model.norm.weight': [hidden],
    'lm_head.weight': [vocab, hidden],
  };
  for (let n = 0; n < layers; n++) {
    const layer = `model.layers.${n}`;
    for (const part of ['q', 'k', 'v', 'o']) shapes[`${layer}.self_attn.${part}_proj.weight`] = [hidden, hidden];
    for (const part of ['gate', 'up']) shapes[`${layer}.mlp.${part}_proj.weight`] = [inner, hidden];
    shapes[`${layer}.mlp.down_proj.weight`] = [hidden, inner];
    for (const norm of ['input_layernorm', 'post_attention_layernorm']) shapes[`${layer}.${norm}.weight`] = [hidden];
  }
  let at = 0;
  const header: Record<string, unknown> = {};
  let largest = 0;
  for (const [tensor, shape] of Object.entries(shapes)) {
    const bytes = 2 * shape.reduce((a, b) => a * b, 1);
    header[tensor] = { dtype: 'BF16', shape, data_offsets: [at, at + bytes] };
    at += bytes;
    largest = Math.max(largest, bytes);
  }
  const text = Buffer.from(JSON.stringify(header));
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(text.length));
  const file = openSync(join(path, 'model.safetensors'), 'w');
  writeSync(file, Buffer.concat([head, text]));
  ftruncateSync(file, 8 + text.length + at);
  closeSync(file);
  const config = JSON.parse(readFileSync(`${goldenPath('llama')}/config.json`, 'utf8'));
  Object.assign(config, {
    hidden_size: hidden,
    intermediate_size: inner,
    vocab_size: vocab,
    num_hidden_layers: layers,
    num_attention_heads: 8,
    num_key_value_heads: 8,
    head_dim: hidden / 8,
  });
  writeFileSync(join(path, 'config.json'), JSON.stringify(config));
  return { path, largest, total: at };
}

/** Peak resident memory of a process that builds, bytes. */
function peakOfBuild(checkpoint: string, dtype: string): number {
  const script = `
    import { buildEngine, findTarget, openCheckpoint } from ${JSON.stringify(join(dist, 'compile/index.js'))};
    using checkpoint = await openCheckpoint(${JSON.stringify(checkpoint)}, { cacheDir: ${JSON.stringify(env.TYPERT_CACHE)} });
    await buildEngine({ checkpoint, target: findTarget('reference'), engineDir: ${JSON.stringify(join(folder, `peak-${dtype}`))}, build: { dtype: ${JSON.stringify(dtype)}, maxSeqLen: 64 } });
    console.log(process.resourceUsage().maxRSS * 1024);
  `.replace(/using (\w+) = /, 'const $1 = ');
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return Number(stdout);
}

describe('memory', () => {
  test('building needs at most three times the largest tensor beyond a small build', () => {
    const small = hollowCheckpoint('small', 64, 256, 2);
    const large = hollowCheckpoint('large', 1024, 24_576, 12);
    expect(large.total).toBeGreaterThan(250e6);
    // float16 from bfloat16 has to convert every weight; float32 keeps the bits.
    for (const dtype of ['float32', 'float16']) {
      const beyond = peakOfBuild(large.path, dtype) - peakOfBuild(small.path, dtype);
      expect(beyond).toBeLessThan(3 * large.largest);
    }
  });
});

describe('a build that cannot finish leaves nothing', () => {
  const files = () => readdirSync(join(folder, 'out'));

  test('when the disk takes no more', () => {
    mkdirSync(join(folder, 'out'), { recursive: true });
    // A limit on the size of files stands for the full disk: writing fails in the same place.
    const command = `trap '' XFSZ; ulimit -f 100; exec ${process.execPath} ${dist}/cli/main.js build ${goldenPath('llama')} -o ${folder}/out/engine --target reference`;
    const { status, stderr } = spawnSync('bash', ['-c', command], {
      encoding: 'utf8',
      env: { ...process.env, ...env },
    });
    expect(stderr).toMatch(/rank0\.engine.*(space|large|limit)/i);
    expect(status).toBe(1);
    expect(files()).toEqual([]);
  });

  test('when it is killed, the next one sweeps what was left', async () => {
    const { path } = hollowCheckpoint('slow', 1024, 24_576, 4);
    const target = join(folder, 'out', 'killed');
    const child = spawn(
      process.execPath,
      [join(dist, 'cli/main.js'), 'build', path, '-o', target, '--dtype', 'float16', '--target', 'reference'],
      { env: { ...process.env, ...env }, stdio: 'ignore' },
    );
    while (files().length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    child.kill('SIGKILL');
    await new Promise((resolve) => child.on('close', resolve));
    expect(files().every((name) => name.includes('.partial-'))).toBe(true);
    expect(
      (
        await typert(['build', goldenPath('llama'), '-o', target, '--target', 'reference', '--max-seq-len', '64'], {
          env,
        })
      ).code,
    ).toBe(0);
    expect(files()).toEqual(['killed']);
  });

  test('Ctrl-C takes its partial folder with it', async () => {
    const { path } = hollowCheckpoint('interrupted', 1024, 24_576, 4);
    const child = spawn(
      process.execPath,
      [
        join(dist, 'cli/main.js'),
        'build',
        path,
        '-o',
        join(folder, 'out', 'never'),
        '--dtype',
        'float16',
        '--target',
        'reference',
      ],
      { env: { ...process.env, ...env }, stdio: 'ignore' },
    );
    while (!files().some((name) => name.includes('never'))) await new Promise((resolve) => setTimeout(resolve, 5));
    child.kill('SIGINT');
    await new Promise((resolve) => child.on('close', resolve));
    expect(files().filter((name) => name.includes('never'))).toEqual([]);
  });
});
