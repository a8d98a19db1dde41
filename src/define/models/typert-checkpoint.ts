// TypeRT checkpoints: TensorRT-LLM's layout, a folder with config.json and rank0.safetensors whose tensors carry the model's own parameter names,
// with q, k and v joined as `attention.qkv` and experts' halves in TensorRT-LLM's order (up, then gate).
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { byteLength, dtypes, elementCount, type FloatDType, isBlockDType, isFloatDType } from '../../base/dtype.ts';
import { CheckpointError, ConfigError, show } from '../../base/errors.ts';
import { writeFolder } from '../../base/files.ts';
import { type Progress, silent } from '../../base/progress.ts';
import { writeSafetensors } from '../checkpoint/safetensors-write.ts';
import type { Checkpoint, TensorSource } from '../checkpoint/tensors.ts';
import { concat, slice, source, streamWeight, type WeightExpr, weightMeta } from '../checkpoint/weights.ts';
import { type Parameter, parametersOf, snakeCase } from '../nn/module.ts';
import type { CausalLM } from '../nn/step.ts';
import { Fields } from './fields.ts';
import type { ModelConfig } from './registry.ts';

const camelCase = (name: string): string => name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());

function renameKeys(value: unknown, rename: (key: string) => string): unknown {
  if (Array.isArray(value)) return value.map((item) => renameKeys(item, rename));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [rename(key), renameKeys(item, rename)]));
}

/** A model's config in the words of TensorRT-LLM's `pretrained_config` (snake_case). */
export function toTypertConfig(config: ModelConfig): Record<string, unknown> {
  return renameKeys(config, snakeCase) as Record<string, unknown>;
}

/** The inverse, with the fields every model needs checked; the rest was checked when the checkpoint was made. */
export function parseTypertConfig(json: Readonly<Record<string, unknown>>, where: string): ModelConfig {
  const fields = new Fields(json, where);
  fields.text('architecture');
  for (const name of ['vocab_size', 'hidden_size', 'num_hidden_layers', 'max_position_embeddings']) fields.size(name);
  fields.dtype();
  const {
    mapping,
    quantization,
    producer: _producer,
    ...rest
  } = json as { mapping?: { world_size?: number }; quantization?: { quant_algo?: unknown }; producer?: unknown };
  if ((mapping?.world_size ?? 1) !== 1) {
    throw new ConfigError('wrong field', {
      where: `${where}: mapping.world_size`,
      expected: '1',
      got: show(mapping?.world_size),
      remedy: 'Convert the checkpoint for one rank',
    });
  }
  if (quantization?.quant_algo != null) {
    throw new ConfigError('wrong field', {
      where: `${where}: quantization.quant_algo`,
      expected: 'null',
      got: show(quantization.quant_algo),
      remedy: 'Use an unquantised checkpoint',
    });
  }
  return renameKeys(rest, camelCase) as ModelConfig;
}

const attentionPart = /^(.*\.attention)\.([qkv])\.(weight|bias)$/;
const expertsUp = /^(.*)\.fc\.weight$/;

/** Recipes over a TypeRT checkpoint's tensors. */
export function typertWeights(parameters: readonly Parameter[], tensors: TensorSource): (name: string) => WeightExpr {
  const rowsOf = new Map(parameters.map((parameter) => [parameter.name, parameter.shape[0]!]));
  const shapes = new Map(parameters.map((parameter) => [parameter.name, parameter.shape]));
  return (name) => {
    const part = attentionPart.exec(name);
    if (part !== null) {
      const [, attention, which, kind] = part as unknown as [string, string, string, string];
      const rows = (letter: string) => rowsOf.get(`${attention}.${letter}.${kind}`) ?? 0;
      const start = which === 'q' ? 0 : which === 'k' ? rows('q') : rows('q') + rows('k');
      return slice(source(`${attention}.qkv.${kind}`), 0, start, start + rows(which));
    }
    const shape = shapes.get(name);
    if (shape?.length === 3 && expertsUp.test(name)) {
      const half = shape[1]! / 2;
      return concat(1, [slice(source(name), 1, half, 2 * half), slice(source(name), 1, 0, half)]);
    }
    if (name === 'lm_head.weight' && !tensors.tensors.has(name)) return source('transformer.vocab_embedding.weight');
    return source(name);
  };
}

/** What a bound model's parameters are written as: name → recipe over the checkpoint they are bound to. */
function typertTensors(
  model: CausalLM,
  tied: boolean,
): Map<string, { from: WeightExpr; dtype: Parameter['bound']['dtype'] }> {
  const out = new Map<string, { from: WeightExpr; dtype: Parameter['bound']['dtype'] }>();
  const stored = parametersOf(model).filter((parameter) => parameter.computed === undefined);
  const byName = new Map(stored.map((parameter) => [parameter.name, parameter]));
  for (const { name, shape, bound } of stored) {
    const part = attentionPart.exec(name);
    if (part?.[2] === 'q') {
      const parts = ['q', 'k', 'v'].flatMap((letter) => byName.get(`${part[1]}.${letter}.${part[3]}`)?.bound ?? []);
      const dtype = parts.every((item) => item.dtype === bound.dtype) ? bound.dtype : 'float32';
      out.set(`${part[1]}.qkv.${part[3]}`, {
        from: concat(
          0,
          parts.map(({ from }) => from),
        ),
        dtype,
      });
    } else if (shape.length === 3 && expertsUp.test(name)) {
      const half = shape[1]! / 2;
      out.set(name, {
        from: concat(1, [slice(bound.from, 1, half, 2 * half), slice(bound.from, 1, 0, half)]),
        dtype: bound.dtype,
      });
    } else if (part === null && !(tied && name === 'lm_head.weight')) {
      out.set(name, bound);
    }
  }
  return out;
}

export interface ConvertOptions {
  readonly model: CausalLM;
  readonly config: ModelConfig;
  readonly checkpoint: Checkpoint;
  readonly dtype: FloatDType;
  readonly outputDir: string;
  readonly progress?: Progress;
}

/** Writes a bound model as a TypeRT checkpoint; nothing is left behind when it fails. */
export async function writeTypertCheckpoint({
  model,
  config,
  checkpoint,
  dtype,
  outputDir,
  progress = silent,
}: ConvertOptions): Promise<void> {
  const tied = 'tieWordEmbeddings' in config && config.tieWordEmbeddings === true;
  const entries = [...typertTensors(model, tied)].map(([name, { from, dtype: kept }]) => {
    const { shape } = weightMeta(from, checkpoint.tensors);
    if (isBlockDType(kept) || !isFloatDType(kept))
      throw new CheckpointError('cannot be written', { where: name, expected: 'a float dtype', got: kept });
    return {
      name,
      from,
      kept,
      dtype: dtypes[kept].safetensors,
      shape,
      bytes: byteLength(kept, elementCount(shape)),
    };
  });
  const total = entries.reduce((sum, entry) => sum + entry.bytes, 0);
  let done = 0;
  await writeFolder(outputDir, async (folder) => {
    await writeSafetensors(join(folder, 'rank0.safetensors'), entries, {}, ({ name, from, kept, bytes }) => {
      done += bytes;
      progress({ task: 'convert', done, total, unit: 'bytes', item: name });
      return streamWeight(from, checkpoint.tensors, kept);
    });
    const json = {
      producer: { name: 'typert' },
      ...toTypertConfig({ ...config, dtype }),
      mapping: { world_size: 1, tp_size: 1, pp_size: 1 },
      quantization: { quant_algo: null, kv_cache_quant_algo: null },
    };
    writeFileSync(join(folder, 'config.json'), `${JSON.stringify(json, null, 2)}\n`);
    for (const [name, content] of checkpoint.assets) writeFileSync(join(folder, name), content);
  });
}
