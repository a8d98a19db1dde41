import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { goldenPath } from '../../../test/support/golden.ts';
import { EngineError } from '../../base/errors.ts';
import { openCheckpoint } from '../../define/checkpoint/open.ts';
import { openSafetensors } from '../../define/checkpoint/safetensors.ts';
import { referenceTarget } from '../../targets/reference/target.ts';
import { buildEngine } from '../build.ts';
import { cachedEngine } from '../cache.ts';
import { openEngine } from './read.ts';

const folder = mkdtempSync(join(tmpdir(), 'typert-engine-'));
const good = join(folder, 'good');
const build = { maxSeqLen: 32, maxBatchSize: 2, tokensPerBlock: 8 } as const;

beforeAll(async () => {
  using checkpoint = await openCheckpoint(goldenPath('llama'), { cacheDir: folder });
  await buildEngine({ checkpoint, target: referenceTarget, engineDir: good, build });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A copy of the engine, damaged by `hurt`. */
function damaged(name: string, hurt: (path: string) => void): string {
  const path = join(folder, name);
  cpSync(good, path, { recursive: true });
  hurt(path);
  return path;
}

function edit(path: string, change: (json: Record<string, never>) => void): void {
  const file = join(path, 'config.json');
  const json = JSON.parse(readFileSync(file, 'utf8'));
  change(json);
  writeFileSync(file, JSON.stringify(json));
}

describe('engine folder', () => {
  test('has TensorRT-LLM’s layout, and a rank file that is a safetensors file', () => {
    const config = JSON.parse(readFileSync(join(good, 'config.json'), 'utf8'));
    expect(Object.keys(config)).toEqual(['version', 'producer', 'pretrained_config', 'build_config']);
    expect(config.pretrained_config).toMatchObject({
      architecture: 'LlamaForCausalLM',
      num_attention_heads: 4,
      head_size: 16,
      hidden_act: 'silu',
    });
    expect(config.build_config).toMatchObject({ max_seq_len: 32, max_batch_size: 2, target: 'reference' });
    using file = openSafetensors(join(good, 'rank0.engine'));
    expect(file.tensors.get('transformer.layers.0.attention.q+k+v.weight')).toMatchObject({
      dtype: 'bfloat16',
      shape: [128, 64],
    });
    expect(JSON.parse(file.metadata['typert.plan']!).target).toBe('reference');
  });

  test('is refused when it is of a newer version, damaged or missing, with what to do', () => {
    const refused = (path: string, message: RegExp) => {
      expect(() => openEngine(path)).toThrow(EngineError);
      expect(() => openEngine(path)).toThrow(message);
    };
    refused(join(folder, 'nowhere'), /no engine; expected a folder with config.json and rank0.engine.*typert build/);
    refused(
      damaged('newer', (path) => edit(path, (json) => Object.assign(json, { version: 99 }))),
      /config\.json: engine of a newer version; expected version up to 1; got 99\. Update typert/,
    );
    refused(
      damaged('config', (path) => writeFileSync(join(path, 'config.json'), '{')),
      /config\.json: cannot be read.*Build it again/,
    );
    refused(
      damaged('field', (path) => edit(path, (json) => Object.assign(json.build_config!, { max_seq_len: -1 }))),
      /config\.json: damaged engine config.*max_seq_len/,
    );
    refused(
      damaged('short', (path) => truncateSync(join(path, 'rank0.engine'), 5000)),
      /rank0\.engine: damaged engine.*Build it again/,
    );
    refused(
      damaged('empty', (path) => writeFileSync(join(path, 'rank0.engine'), '')),
      /rank0\.engine: damaged engine/,
    );
  });

  test('leaves nothing behind when the weights cannot be read to the end', async () => {
    const broken = join(folder, 'broken-checkpoint');
    cpSync(goldenPath('llama'), broken, { recursive: true });
    using checkpoint = await openCheckpoint(broken, { cacheDir: folder });
    truncateSync(join(broken, 'model.safetensors'), 100_000);
    await expect(
      buildEngine({ checkpoint, target: referenceTarget, engineDir: join(folder, 'never'), build }),
    ).rejects.toThrow(/model\.safetensors/);
    expect(existsSync(join(folder, 'never'))).toBe(false);
    expect(readdirSync(folder).filter((name) => name.includes('partial'))).toEqual([]);
  });
});

describe('build cache', () => {
  test('builds once, and again when the content or a setting changes or the engine is damaged', async () => {
    const copy = join(folder, 'checkpoint');
    cpSync(goldenPath('llama'), copy, { recursive: true });
    const cacheDir = join(folder, 'cache');
    const run = async (settings: object = {}) => {
      using checkpoint = await openCheckpoint(copy, { cacheDir });
      return await cachedEngine({
        checkpoint,
        target: referenceTarget,
        build: { ...build, ...settings },
        cacheDir,
        progress: () => {},
      });
    };
    const first = await run();
    expect(first.built).toBe(true);
    expect(await run()).toEqual({ engineDir: first.engineDir, built: false });
    expect((await run({ maxSeqLen: 16 })).built).toBe(true);
    truncateSync(join(first.engineDir, 'rank0.engine'), 5000);
    expect((await run()).built).toBe(true);
    const weights = readFileSync(join(copy, 'model.safetensors'));
    weights[weights.length - 2]! ^= 1;
    writeFileSync(join(copy, 'model.safetensors'), weights);
    const changed = await run();
    expect(changed.built).toBe(true);
    expect(changed.engineDir).not.toBe(first.engineDir);
  });
});
