// Checkpoint folders as Hugging Face transformers writes them: config.json, safetensors in one file or in shards, and text files.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { CheckpointError, ConfigError } from '../../base/errors.ts';
import { isFile, isFolder } from '../../base/files.ts';
import { checkpointHash } from './hash.ts';
import { type JsonObject, readBounded, readConfig } from './json.ts';
import { openSafetensors, type SafetensorsSource, shardedSafetensors } from './safetensors.ts';
import type { Checkpoint, CheckpointFormat, TensorSource } from './tensors.ts';

/** The text files that travel with a model. */
export const assetNames: readonly string[] = [
  'tokenizer.json',
  'tokenizer_config.json',
  'generation_config.json',
  'chat_template.jinja',
  'special_tokens_map.json',
];
/** More than any tokenizer.json known (Gemma's has 34 MB), bytes. */
const maxAssetBytes = 256 << 20;

/** The text files of `folder`; throws CheckpointError when one cannot be read or is not UTF-8. */
export function readAssets(folder: string): Map<string, string> {
  const assets = new Map<string, string>();
  for (const name of assetNames) {
    const path = join(folder, name);
    if (!isFile(path)) continue;
    try {
      assets.set(name, new TextDecoder('utf-8', { fatal: true }).decode(readBounded(path, maxAssetBytes)));
    } catch (cause) {
      if (cause instanceof CheckpointError) throw cause;
      throw new CheckpointError('is not UTF-8', {
        where: path,
        expected: 'text in UTF-8',
        got: 'other bytes',
        remedy: 'Fetch the file again',
        cause,
      });
    }
  }
  return assets;
}

/**
 * Makes a Checkpoint of its parts; `files` are those whose contents enter the content hash. Assets given as a function are made when first
 * asked for and must follow from `files` alone: they do not enter the hash, so that finding a built engine costs no tokenizer.
 */
export function makeCheckpoint(parts: {
  readonly format: CheckpointFormat;
  readonly path: string;
  readonly config: JsonObject;
  readonly tensors: TensorSource;
  readonly assets: ReadonlyMap<string, string> | (() => ReadonlyMap<string, string>);
  readonly files: readonly string[];
  readonly cacheDir: string;
}): Checkpoint {
  const { format, path, config, tensors, files, cacheDir } = parts;
  let hash: Promise<string> | undefined;
  let { assets } = parts;
  const hashed = typeof assets === 'function' ? new Map<string, string>() : assets;
  return {
    format,
    path,
    config,
    tensors,
    get assets() {
      if (typeof assets === 'function') assets = assets();
      return assets;
    },
    contentHash: () => (hash ??= checkpointHash(config, hashed, tensors, files, cacheDir)),
    [Symbol.dispose]: () => tensors[Symbol.dispose](),
  };
}

function refuseWeights(folder: string): never {
  const names = readdirSync(folder);
  const pickle = names.find((name) => /^(pytorch_model.*\.bin|.*\.(pt|pth|ckpt))$/.test(name));
  const other = names.find((name) => /^(tf_model\.h5|flax_model\.msgpack|.*\.onnx)$/.test(name));
  const found = pickle ?? other;
  throw new CheckpointError('no weights that can be read', {
    where: folder,
    expected: 'model.safetensors or model.safetensors.index.json',
    got: found ?? (names.length === 0 ? 'an empty folder' : `other files (${names.slice(0, 5).join(', ')})`),
    remedy:
      found === undefined
        ? 'Fetch the weights too'
        : 'Convert them with transformers: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(out, safe_serialization=True)',
  });
}

function openWeights(folder: string): { tensors: SafetensorsSource; files: readonly string[] } {
  const single = join(folder, 'model.safetensors');
  const index = join(folder, 'model.safetensors.index.json');
  if (isFile(single)) return { tensors: openSafetensors(single), files: [single] };
  if (isFile(index)) {
    const tensors = shardedSafetensors(index);
    return { tensors, files: tensors.files };
  }
  return refuseWeights(folder);
}

/** Reads the config.json of a checkpoint folder; throws CheckpointError when the folder is missing, ConfigError when the file is missing or malformed. */
export function folderConfig(folder: string): JsonObject {
  if (!isFolder(folder)) {
    throw new CheckpointError('no such folder', {
      where: folder,
      expected: 'a checkpoint folder with config.json and weights',
      got: isFile(folder) ? 'a file' : 'nothing there',
      remedy: 'Check the path, or give a Hugging Face model id',
    });
  }
  const path = join(folder, 'config.json');
  if (!isFile(path)) {
    throw new ConfigError('config.json is missing', {
      where: folder,
      expected: `a file ${path}`,
      got: `${readdirSync(folder).length} other files`,
      remedy: 'Fetch the whole model: config.json says what its weights are',
    });
  }
  return readConfig(path);
}

/** Opens a Hugging Face checkpoint folder. Throws CheckpointError or ConfigError. */
export function openHuggingFace(
  folder: string,
  { cacheDir, config = folderConfig(folder) }: { cacheDir: string; config?: JsonObject },
): Checkpoint {
  const assets = readAssets(folder);
  const { tensors, files } = openWeights(folder);
  return makeCheckpoint({ format: 'huggingface', path: folder, config, tensors, assets, files, cacheDir });
}
