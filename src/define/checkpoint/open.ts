// Opens whatever checkpoint lies at a path: a Hugging Face folder, a TypeRT (TensorRT-LLM) folder, or a GGUF file.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { readEnv } from '../../base/env.ts';
import { CheckpointError, ConfigError } from '../../base/errors.ts';
import { isFile, isFolder } from '../../base/files.ts';
import { openDummyCheckpoint } from './dummy.ts';
import { openGgufCheckpoint } from './gguf-checkpoint.ts';
import { folderConfig, makeCheckpoint, openHuggingFace, readAssets } from './huggingface.ts';
import { isObject, type JsonObject, kindOf } from './json.ts';
import { openSafetensors } from './safetensors.ts';
import type { Checkpoint } from './tensors.ts';

/** Options of `openCheckpoint`. */
export interface OpenOptions {
  /** Where content hashes are remembered; TypeRT's cache folder by default. */
  readonly cacheDir?: string;
  /** Which rank's weights to open, of a TypeRT checkpoint. */
  readonly rank?: number;
  /** 'dummy': random weights of the shapes that config.json gives, from `seed`. */
  readonly loadFormat?: 'auto' | 'dummy';
  readonly seed?: number;
}

function openTypert(folder: string, config: JsonObject, rank: number, cacheDir: string): Checkpoint {
  const file = join(folder, `rank${rank}.safetensors`);
  if (!isFile(file)) {
    throw new CheckpointError('no weights', {
      where: folder,
      expected: `rank${rank}.safetensors beside a config.json of TensorRT-LLM's form`,
      got: readdirSync(folder).slice(0, 5).join(', '),
      remedy: 'Convert the checkpoint again (typert convert)',
    });
  }
  const assets = readAssets(folder);
  const tensors = openSafetensors(file);
  return makeCheckpoint({ format: 'typert', path: folder, config, tensors, assets, files: [file], cacheDir });
}

function openFolder(folder: string, cacheDir: string, rank: number): Checkpoint {
  const names = readdirSync(folder);
  if (!names.includes('config.json')) {
    const ggufs = names.filter((name) => name.toLowerCase().endsWith('.gguf'));
    if (ggufs.length === 1) return openGgufCheckpoint(join(folder, ggufs[0]!), { cacheDir });
    if (ggufs.length > 1) {
      throw new CheckpointError('several GGUF files', {
        where: folder,
        expected: 'one .gguf file, or config.json with safetensors',
        got: ggufs.slice(0, 5).join(', '),
        remedy: 'Give the path of the file you want',
      });
    }
  }
  const config = folderConfig(folder);
  if (isObject(config.pretrained_config)) {
    throw new CheckpointError('is an engine, not a checkpoint', {
      where: folder,
      expected: 'a checkpoint folder',
      got: 'a config.json with pretrained_config and build_config',
      remedy: 'Engines are opened directly by run and serve; to build again, give the checkpoint it was built from',
    });
  }
  if (typeof config.architecture === 'string') return openTypert(folder, config, rank, cacheDir);
  if (!Array.isArray(config.architectures) || typeof config.architectures[0] !== 'string') {
    throw new ConfigError('does not say what the model is', {
      where: join(folder, 'config.json'),
      expected: 'architectures, a list with a class name (Hugging Face), or architecture (TensorRT-LLM)',
      got: `architectures: ${kindOf(config.architectures)}`,
      remedy: 'Add the model\'s class, for example "architectures": ["LlamaForCausalLM"]',
    });
  }
  return openHuggingFace(folder, { cacheDir, config });
}

/**
 * Opens the checkpoint at `path`, choosing the reader by what is there: a folder with config.json, a `.gguf` file, or a folder that holds
 * exactly one. The caller disposes it. Throws CheckpointError or ConfigError, which name the file at fault.
 */
export async function openCheckpoint(path: string, options: OpenOptions = {}): Promise<Checkpoint> {
  const cacheDir = options.cacheDir ?? readEnv().cacheDir;
  if (options.loadFormat === 'dummy') return openDummyCheckpoint(path, { cacheDir, seed: options.seed ?? 0 });
  if (isFolder(path)) return openFolder(path, cacheDir, options.rank ?? 0);
  if (isFile(path)) {
    if (path.toLowerCase().endsWith('.gguf')) return openGgufCheckpoint(path, { cacheDir });
    throw new CheckpointError('not a checkpoint', {
      where: path,
      expected: 'a checkpoint folder or a .gguf file',
      got: 'another file',
      remedy: 'Give the folder that holds config.json and the weights',
    });
  }
  throw new CheckpointError('no such checkpoint', {
    where: path,
    expected: 'a checkpoint folder or a .gguf file',
    got: 'nothing there',
    remedy: 'Check the path, or give a Hugging Face model id',
  });
}
