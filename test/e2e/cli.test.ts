// The command line: what it prints, how it exits, and that bad input ends in a sentence that helps.
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { typert } from '../support/cli.ts';
import { goldenPath } from '../support/golden.ts';
import { temporaryFolder } from '../support/temporary.ts';

const folder = temporaryFolder();
const env = { TYPERT_CACHE: join(folder, 'cache'), TYPERT_TARGET: 'reference' };
const llama = goldenPath('llama');
const small = ['--max-seq-len', '64', '--target', 'reference'] as const;

describe('run', () => {
  test('tells a story with the bundled model, and the same with the same seed from a pipe', async () => {
    const first = await typert(
      ['run', 'models/storyteller-7m', 'A story about a fox', '--seed', '3', '-n', '20', '--stats'],
      { env },
    );
    expect(first.code).toBe(0);
    expect(first.stdout.trim().length).toBeGreaterThan(30);
    expect(first.stderr).toContain('write engine');
    expect(first.stderr).toMatch(/prompt tokens · first token after .* · 20 tokens/);
    const second = await typert(['run', 'models/storyteller-7m', '--seed', '3', '-n', '20'], {
      env,
      input: 'A story about a fox\n',
    });
    expect(second.stdout).toBe(first.stdout);
    expect(second.stderr).toBe('');
  });

  test('--json gives the whole result', async () => {
    const { code, stdout } = await typert(
      ['run', 'models/storyteller-7m', 'hello', '--json', '--temperature', '0', '-n', '5'],
      { env },
    );
    expect(code).toBe(0);
    const output = JSON.parse(stdout);
    expect(output).toMatchObject({ finished: true, outputs: [{ index: 0, finishReason: 'length' }] });
    expect(output.outputs[0].tokenIds).toHaveLength(5);
    expect(stdout).not.toContain('Delta');
  });

  test('Ctrl-C in mid-answer ends with what there is, and 130', async () => {
    const { code, stdout } = await typert(
      ['run', 'models/storyteller-7m', 'A long story', '--temperature', '0', '-n', '450'],
      { env, signalAfter: { ms: 1500, signal: 'SIGINT' } },
    );
    expect(code).toBe(130);
    expect(stdout.endsWith('\n')).toBe(true);
  });
});

describe('build, inspect, convert', () => {
  const engine = join(folder, 'engine');

  test('build writes an engine that inspect reads', async () => {
    const built = await typert(['build', llama, '-o', engine, ...small, '--json'], { env });
    expect(built.code).toBe(0);
    expect(JSON.parse(built.stdout)).toMatchObject({
      architecture: 'LlamaForCausalLM',
      target: 'reference',
      dtype: 'float32',
    });
    expect(readdirSync(engine).sort()).toEqual(['config.json', 'generation_config.json', 'rank0.engine']);
    const shown = await typert(['inspect', engine], { env });
    expect(shown.stdout).toMatch(/LlamaForCausalLM, engine version 1/);
    expect(shown.stdout).toMatch(/max_seq_len: 64/);
    expect((await typert(['inspect', engine, '--plan'], { env })).stdout).toMatch(
      /reference\/pagedAttention {2}transformer\.layers\.1\.attention/,
    );
    expect(JSON.parse((await typert(['inspect', engine, '--json'], { env })).stdout).memory.weights).toBeGreaterThan(
      100_000,
    );
  });

  test('inspect shows a checkpoint’s graph at every stage, in three forms', async () => {
    expect((await typert(['inspect', llama, '--graph', 'trace', ...small], { env })).stdout).toContain('= attention(');
    expect((await typert(['inspect', llama, '--graph', 'lower-attention', ...small], { env })).stdout).toContain(
      '= ropeCache(',
    );
    expect(
      (await typert(['inspect', llama, '--graph', 'trace', '--format', 'mermaid', ...small], { env })).stdout,
    ).toMatch(/^flowchart TD/);
    expect((await typert(['inspect', llama, '--graph', 'trace', '--format', 'dot', ...small], { env })).stdout).toMatch(
      /^digraph/,
    );
    expect((await typert(['inspect', llama, '--passes', ...small], { env })).stdout).toMatch(
      /merge-matmuls +\d+ nodes +computes products/,
    );
    const wrong = await typert(['inspect', llama, '--graph', 'nothing', ...small], { env });
    expect(wrong).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/no such stage; expected trace, canonicalise/),
    });
  });

  test('convert writes TensorRT-LLM’s layout, and its engine holds the same weights', async () => {
    const converted = join(folder, 'converted');
    expect((await typert(['convert', llama, '-o', converted], { env })).code).toBe(0);
    const config = JSON.parse(readFileSync(join(converted, 'config.json'), 'utf8'));
    expect(config).toMatchObject({
      architecture: 'LlamaForCausalLM',
      dtype: 'bfloat16',
      hidden_size: 64,
      num_key_value_heads: 2,
      mapping: { world_size: 1 },
    });
    const again = join(folder, 'engine-of-converted');
    expect((await typert(['build', converted, '-o', again, ...small], { env })).code).toBe(0);
    expect(statSync(join(again, 'rank0.engine')).size).toBe(statSync(join(engine, 'rank0.engine')).size);
  });

  test('doctor tells what is here', async () => {
    const { code, stdout } = await typert(['doctor'], { env });
    expect(code).toBe(0);
    expect(stdout).toMatch(/✓ node/);
    expect(stdout).toMatch(/✓ target reference/);
    const { findings } = JSON.parse((await typert(['doctor', '--json'], { env })).stdout);
    expect(findings.map(({ name }: { name: string }) => name)).toContain('cache');
  });
});

describe('wrong usage exits with 2', () => {
  test.each([
    [['rnu'], /unknown command 'rnu'[\s\S]*Did you mean run/],
    [['run', llama, '--temperatur', '1'], /unknown option '--temperatur'/],
    [['run', llama, 'x', '--temperature', 'hot'], /expected a number/],
    [['build', llama], /required option '-o, --output <dir>'/],
    [['run', llama, '--target', 'tpu', 'x'], /Allowed choices are auto, cuda, cpu, reference/],
    [['run', llama], /no prompt/],
  ])('%o', async (args, message) => {
    const { code, stderr, stdout } = await typert(args, { env });
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(message);
  });

  test('a bad environment variable', async () => {
    expect(await typert(['doctor'], { env: { TYPERT_DEBUG: 'loud' } })).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/TYPERT_DEBUG.*0 to 5.*loud/),
    });
  });
});

describe('bad input exits with 1, says where and what to do, and leaves nothing behind', () => {
  /** A damaged copy of the llama case. */
  const damaged = (name: string, hurt: (path: string) => void): string => {
    const path = join(folder, name);
    cpSync(llama, path, { recursive: true });
    hurt(path);
    return path;
  };
  const editConfig = (path: string, change: (json: Record<string, unknown>) => void): void => {
    const file = join(path, 'config.json');
    const json = JSON.parse(readFileSync(file, 'utf8'));
    change(json);
    writeFileSync(file, JSON.stringify(json));
  };
  const editHeader = (
    path: string,
    change: (header: Record<string, { shape: number[]; dtype: string; data_offsets: number[] }>) => void,
  ): void => {
    const file = join(path, 'model.safetensors');
    const bytes = readFileSync(file);
    const length = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.subarray(8, 8 + length).toString());
    change(header);
    const text = Buffer.from(JSON.stringify(header));
    const head = Buffer.alloc(8);
    head.writeBigUInt64LE(BigInt(text.length));
    writeFileSync(file, Buffer.concat([head, text, bytes.subarray(8 + length)]));
  };
  const down = 'model.layers.0.mlp.down_proj.weight';
  const cases: readonly [string, () => string, RegExp][] = [
    ['missing folder', () => join(folder, 'nowhere', 'at', 'all'), /nowhere\/at\/all/],
    [
      'unknown architecture',
      () => damaged('arch', (p) => editConfig(p, (c) => Object.assign(c, { architectures: ['LlamoForCausalLM'] }))),
      /config\.json: unknown architecture.*LlamaForCausalLM.*registerModel/,
    ],
    [
      'config field missing',
      () => damaged('field', (p) => editConfig(p, (c) => delete c.hidden_size)),
      /config\.json: hidden_size: missing field; expected a positive integer; got nothing/,
    ],
    [
      'config field of the wrong type',
      () => damaged('type', (p) => editConfig(p, (c) => Object.assign(c, { num_hidden_layers: 'two' }))),
      /num_hidden_layers: wrong field; expected a positive integer; got "two"/,
    ],
    [
      'config that is no JSON',
      () => damaged('json', (p) => writeFileSync(join(p, 'config.json'), '{"a":')),
      /config\.json/,
    ],
    [
      'safetensors truncated',
      () => damaged('cut', (p) => truncateSync(join(p, 'model.safetensors'), 90_000)),
      /model\.safetensors/,
    ],
    [
      'header too long',
      () =>
        damaged('long', (p) => {
          const f = join(p, 'model.safetensors');
          const b = readFileSync(f);
          b.writeBigUInt64LE(2n ** 40n, 0);
          writeFileSync(f, b);
        }),
      /model\.safetensors.*header/,
    ],
    [
      'overlapping offsets',
      () =>
        damaged('overlap', (p) =>
          editHeader(p, (h) => {
            h[down]!.data_offsets = h['lm_head.weight']!.data_offsets.map((n, i) => (i === 0 ? n : n - 16384));
          }),
        ),
      /model\.safetensors/,
    ],
    [
      'wrong shape',
      () => damaged('shape', (p) => editHeader(p, (h) => h[down]!.shape.reverse())),
      /down_proj\.weight.*wrong shape; expected \[64,128\]; got \[128,64\]/,
    ],
    [
      'wrong dtype',
      () =>
        damaged('dtype', (p) =>
          editHeader(p, (h) => {
            h[down]!.dtype = 'I16';
          }),
        ),
      /down_proj\.weight.*wrong dtype.*got int16/,
    ],
    [
      'missing tensor',
      () =>
        damaged('tensor', (p) =>
          editHeader(p, (h) => {
            h.renamed = h[down]!;
            delete h[down];
          }),
        ),
      /missing tensor; expected a tensor named model\.layers\.0\.mlp\.down_proj\.weight/,
    ],
  ];

  test.each(cases)('%s', async (name, make, message) => {
    const output = join(folder, 'out', name.replaceAll(' ', '-'));
    mkdirSync(join(folder, 'out'), { recursive: true });
    const { code, stderr } = await typert(['build', make(), '-o', output, ...small], { env });
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/unexpected|at .*\.js:/);
    expect(code).toBe(1);
    expect(existsSync(output)).toBe(false);
    expect(readdirSync(join(folder, 'out'))).toEqual([]);
  });

  test('a prompt longer than maxSeqLen', async () => {
    const { code, stderr } = await typert(
      ['run', 'models/storyteller-7m', '--raw', '--max-seq-len', '16', 'word '.repeat(60)],
      { env },
    );
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringMatching(/too long; expected fewer than maxSeqLen = 16/),
    });
  });

  test('as JSON when asked', async () => {
    const { code, stderr } = await typert(['build', join(folder, 'nowhere', 'x'), '-o', join(folder, 'z'), '--json'], {
      env,
    });
    expect(code).toBe(1);
    expect(JSON.parse(stderr).error).toMatchObject({
      type: expect.stringMatching(/Error$/),
      where: expect.stringContaining('nowhere'),
    });
  });

  test('an engine that is damaged', async () => {
    const engine = join(folder, 'damaged-engine');
    expect((await typert(['build', llama, '-o', engine, ...small], { env })).code).toBe(0);
    truncateSync(join(engine, 'rank0.engine'), 1000);
    const { code, stderr } = await typert(['run', engine, 'x'], { env });
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringMatching(/rank0\.engine: damaged engine.*typert build/),
    });
    rmSync(engine, { recursive: true });
  });
});
