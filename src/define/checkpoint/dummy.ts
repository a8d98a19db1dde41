// A checkpoint without weights: config.json and text files alone. What would be read is random (loadFormat 'dummy').
import { dirname } from 'node:path';
import { CheckpointError } from '../../base/errors.ts';
import { isFile } from '../../base/files.ts';
import { folderConfig, makeCheckpoint, readAssets } from './huggingface.ts';
import { readConfig } from './json.ts';
import type { Checkpoint, TensorSource } from './tensors.ts';

/** Standard deviation of random weights: what most models are initialised with. */
export const dummyDeviation = 0.02;

/** Opens the config.json at `path`, or in the folder there; every weight is random and follows from `seed`. Throws CheckpointError or ConfigError. */
export function openDummyCheckpoint(path: string, { cacheDir, seed }: { cacheDir: string; seed: number }): Checkpoint {
  const file = isFile(path);
  const config = { ...(file ? readConfig(path) : folderConfig(path)), typert_dummy_seed: seed };
  const tensors: TensorSource = {
    label: path,
    tensors: new Map(),
    read: (name) => {
      throw new CheckpointError('has no weights', { where: path, expected: name, got: "loadFormat 'dummy'" });
    },
    [Symbol.dispose]: () => {},
  };
  const assets = readAssets(file ? dirname(path) : path);
  return makeCheckpoint({ format: 'dummy', path, config, tensors, assets, files: [], cacheDir });
}

/** `count` values, uniform with deviation `dummyDeviation`, from element `start` on: the same whatever the pieces. */
export function dummyValues(seed: number, start: number, count: number): Float32Array {
  const values = new Float32Array(count);
  const width = 2 * Math.sqrt(3) * dummyDeviation;
  for (let i = 0; i < count; i++) {
    const at = start + i;
    let h =
      Math.imul(at | 0, 0x9e3779b1) ^ Math.imul(Math.floor(at / 2 ** 32), 0x85ebca77) ^ Math.imul(seed, 0xc2b2ae3d);
    h = Math.imul(h ^ (h >>> 16), 0x7feb352d);
    h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
    values[i] = width * (((h ^ (h >>> 16)) >>> 8) / 2 ** 24 - 0.5);
  }
  return values;
}
