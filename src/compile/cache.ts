// The build cache: engines under the cache folder, keyed by what they are made of, so that `run` and `serve` build once.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { TypertError } from '../base/errors.ts';
import type { Progress } from '../base/progress.ts';
import { version } from '../base/version.ts';
import type { Checkpoint } from '../define/checkpoint/tensors.ts';
import type { Target } from '../targets/target.ts';
import { type BuildConfig, compile, writeCompiled } from './build.ts';
import { isEngine, openEngine } from './engine/read.ts';

/** What `cachedEngine` found or built. */
export interface CachedEngine {
  readonly engineDir: string;
  /** False when it was there already. */
  readonly built: boolean;
}

/** The engine of a checkpoint with these settings: found in the cache, or built into it. */
export async function cachedEngine(options: {
  readonly checkpoint: Checkpoint;
  readonly target: Target;
  readonly build: BuildConfig;
  readonly cacheDir: string;
  readonly progress: Progress;
}): Promise<CachedEngine> {
  const { checkpoint, target, build, cacheDir, progress } = options;
  const compiled = compile(checkpoint, target, build);
  // What was compiled and what it is filled with: a change of settings, of a user's model code or of the compiler gives another key.
  const key = createHash('sha256');
  for (const part of [
    version,
    JSON.stringify(compiled.plan),
    JSON.stringify(compiled.graph.weights),
    target.packing?.layout ?? '',
    JSON.stringify([target.machine?.() ?? '', build.tune, build.cublaslt]),
  ])
    key.update(part).update('\0');
  key.update(await checkpoint.contentHash());
  const engineDir = join(cacheDir, 'engines', key.digest('hex').slice(0, 32));
  if (isEngine(engineDir) && usable(engineDir)) return { engineDir, built: false };
  await writeCompiled({ checkpoint, target, engineDir, compiled, build, progress });
  return { engineDir, built: true };
}

/** A damaged engine in the cache is built again rather than complained of. */
function usable(engineDir: string): boolean {
  try {
    openEngine(engineDir)[Symbol.dispose]();
    return true;
  } catch (error) {
    if (error instanceof TypertError) return false;
    throw error;
  }
}
