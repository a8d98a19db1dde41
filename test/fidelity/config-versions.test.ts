// Configs as transformers 4 wrote them (most of the hub's) compute what transformers 5's do; weights in shards compute what one file does.
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { dtypes } from '../../src/base/dtype.ts';
import { buildEngine } from '../../src/compile/build.ts';
import { castTensor } from '../../src/define/checkpoint/cast.ts';
import { openCheckpoint } from '../../src/define/checkpoint/open.ts';
import { openSafetensors } from '../../src/define/checkpoint/safetensors.ts';
import { writeSafetensors } from '../../src/define/checkpoint/safetensors-write.ts';
import { openSession } from '../../src/run/session/open.ts';
import { findTarget } from '../../src/targets/index.ts';
import { goldenPath, readGolden } from '../support/golden.ts';
import { RaggedDriver } from '../support/ragged.ts';
import { temporaryFolder } from '../support/temporary.ts';

type Json = Record<string, unknown>;
const folder = temporaryFolder();

/** Takes rope_parameters apart as transformers 4 had them: rope_theta beside rope_scaling, whose key may be `type`. */
function oldRope(config: Json, key: 'type' | 'rope_type'): void {
  const { rope_theta, rope_type, partial_rotary_factor, ...rest } = config.rope_parameters as Json;
  delete config.rope_parameters;
  config.rope_theta = rope_theta;
  config.rope_scaling = rope_type === 'default' ? null : { [key]: rope_type, ...rest };
  if (partial_rotary_factor !== undefined) config.partial_rotary_factor = partial_rotary_factor;
  config.torch_dtype = config.dtype;
  delete config.dtype;
}

const rewrites: readonly [string, (config: Json) => void][] = [
  [
    'llama',
    (c) => {
      oldRope(c, 'rope_type');
      delete c.head_dim;
    },
  ],
  ['llama-linear', (c) => oldRope(c, 'type')],
  ['llama-tied-rope-llama3', (c) => oldRope(c, 'rope_type')],
  ['llama-yarn-bias', (c) => oldRope(c, 'type')],
  [
    'phi3-longrope',
    (c) => {
      oldRope(c, 'type');
      delete (c.rope_scaling as Json).original_max_position_embeddings;
    },
  ],
  [
    'qwen2',
    (c) => {
      oldRope(c, 'type');
      delete c.layer_types;
      c.sliding_window = 4096;
    },
  ],
  [
    'qwen3-moe',
    (c) => {
      oldRope(c, 'rope_type');
      c.num_experts = c.num_local_experts;
      delete c.num_local_experts;
    },
  ],
  [
    'gemma2',
    (c) => {
      oldRope(c, 'type');
      delete c.layer_types;
    },
  ],
  [
    'gemma3-text',
    (c) => {
      const { full_attention: full, sliding_attention: local } = c.rope_parameters as Record<string, Json>;
      Object.assign(c, {
        rope_theta: full!.rope_theta,
        rope_local_base_freq: local!.rope_theta,
        sliding_window_pattern: 6,
        rope_scaling: null,
      });
      for (const key of ['rope_parameters', 'layer_types', '_sliding_window_pattern']) delete c[key];
    },
  ],
  [
    'gpt-neox',
    (c) => {
      Object.assign(c, { rotary_pct: 0.25, rotary_emb_base: 10000 });
      delete c.rope_parameters;
    },
  ],
  [
    'smollm3',
    (c) => {
      oldRope(c, 'rope_type');
      delete c.no_rope_layers;
    },
  ],
];

/** max |Δ| against the stored logits of the first prompt, as a share of their range. */
async function worstOf(path: string, name: string): Promise<number> {
  using checkpoint = await openCheckpoint(path, { cacheDir: folder });
  const engineDir = `${path}-engine`;
  await buildEngine({
    checkpoint,
    target: findTarget('reference'),
    engineDir,
    build: { dtype: 'float32', maxSeqLen: 32, maxNumTokens: 32, maxBatchSize: 1 },
  });
  await using session = await openSession({ engineDir, target: 'reference' });
  const golden = readGolden(name);
  const { ids, logits } = golden.prompts[0]!;
  const driver = new RaggedDriver(session);
  const [rows] = await driver.step([{ sequence: driver.sequence(ids, 32), count: ids.length }]);
  return Math.max(
    ...rows!.map((row, t) => Math.max(...row.map((value, i) => Math.abs(value - logits[t]![i]!))) / golden.range),
  );
}

test.each(rewrites)('transformers 4: %s', async (name, rewrite) => {
  const path = join(folder, name);
  mkdirSync(path);
  const config = JSON.parse(readFileSync(join(goldenPath(name), 'config.json'), 'utf8')) as Json;
  rewrite(config);
  writeFileSync(join(path, 'config.json'), JSON.stringify(config));
  copyFileSync(join(goldenPath(name), 'model.safetensors'), join(path, 'model.safetensors'));
  expect(await worstOf(path, name)).toBeLessThanOrEqual(1e-4);
});

test.each(['float32', 'float16'] as const)('weights in three shards of %s', async (dtype) => {
  const path = join(folder, `sharded-${dtype}`);
  mkdirSync(path);
  const config = JSON.parse(readFileSync(join(goldenPath('llama'), 'config.json'), 'utf8')) as Json;
  writeFileSync(join(path, 'config.json'), JSON.stringify({ ...config, dtype }));
  using source = openSafetensors(join(goldenPath('llama'), 'model.safetensors'));
  const names = [...source.tensors.keys()];
  const weight_map: Record<string, string> = {};
  for (let shard = 0; shard < 3; shard++) {
    const file = `model-0000${shard + 1}-of-00003.safetensors`;
    const parts = names
      .filter((_, i) => i % 3 === shard)
      .map((tensor) => {
        weight_map[tensor] = file;
        const info = source.tensors.get(tensor)!;
        const { data } = castTensor({ dtype: info.dtype, shape: info.shape, data: source.read(tensor) }, dtype);
        return { name: tensor, dtype: dtypes[dtype].safetensors, shape: info.shape, bytes: data.length, data };
      });
    await writeSafetensors(join(path, file), parts, { format: 'pt' }, ({ data }) => data);
  }
  writeFileSync(
    join(path, 'model.safetensors.index.json'),
    JSON.stringify({ metadata: { total_size: 0 }, weight_map }),
  );
  expect(await worstOf(path, 'llama')).toBeLessThanOrEqual(1e-4);
});
