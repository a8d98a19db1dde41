// From whatever a user names (engine folder, checkpoint folder, GGUF file, Hugging Face id) to an engine folder: downloaded, built and cached as needed.
import { existsSync } from 'node:fs';
import { readEnv } from '../base/env.ts';
import { EngineError } from '../base/errors.ts';
import type { Progress } from '../base/progress.ts';
import type { BuildConfig } from '../compile/build.ts';
import { cachedEngine } from '../compile/cache.ts';
import { isEngine, openEngine } from '../compile/engine/read.ts';
import type { QuantConfig } from '../compile/quantization.ts';
import { resolveModel } from '../define/checkpoint/hub.ts';
import { openCheckpoint } from '../define/checkpoint/open.ts';
import { findTarget } from '../targets/index.ts';
import type { ResolvedLLMOptions } from './options.ts';

export interface PreparedEngine {
  readonly engineDir: string;
  /** True when it was built just now. */
  readonly built: boolean;
}

/** The part of the options that decides what is built. */
export type PrepareOptions = Pick<
  ResolvedLLMOptions,
  | 'target'
  | 'dtype'
  | 'maxBatchSize'
  | 'maxNumTokens'
  | 'maxSeqLen'
  | 'kvCacheConfig'
  | 'tune'
  | 'timingCache'
  | 'cublaslt'
  | 'quantConfig'
  | 'revision'
  | 'token'
  | 'cacheDir'
  | 'loadFormat'
  | 'seed'
  | 'progress'
  | 'signal'
>;

/** The local path of a model: itself, or the snapshot of a Hugging Face id. Throws CheckpointError or HubError. */
export async function locateModel(
  model: string,
  { revision, token, progress, signal }: Pick<PrepareOptions, 'revision' | 'token' | 'progress' | 'signal'>,
): Promise<string> {
  if (existsSync(model)) return model;
  return await resolveModel(model, {
    progress,
    ...(revision === undefined ? {} : { revision }),
    ...(token === undefined ? {} : { token }),
    ...(signal === undefined ? {} : { signal }),
  });
}

/** What was asked of a quantisation beside what an engine has. */
function quantisationAsked(
  { quantAlgo, groupSize, hasZeroPoint, activations }: QuantConfig = {},
  built: unknown,
): [string, unknown, unknown][] {
  const have = (built ?? { activations: 'auto' }) as Readonly<Record<string, unknown>>;
  return [
    ['quantConfig.quantAlgo', quantAlgo, have.quant_algo],
    ['quantConfig.groupSize', groupSize, have.group_size],
    ['quantConfig.hasZeroPoint', hasZeroPoint, have.has_zero_point],
    ['quantConfig.activations', activations, have.activations],
  ];
}

function refuseMismatch(path: string, options: PrepareOptions): void {
  using engine = openEngine(path);
  const { build_config: built } = engine.config;
  const { dtype: cacheAsked } = options.kvCacheConfig;
  const asked: readonly [string, unknown, unknown][] = [
    ['target', options.target === 'auto' ? undefined : options.target, built.target],
    ['dtype', options.dtype === 'auto' ? undefined : options.dtype, built.dtype],
    ...quantisationAsked(options.quantConfig, engine.config.pretrained_config.quantization),
    ['kvCacheConfig.dtype', cacheAsked === 'auto' ? undefined : cacheAsked, built.kv_cache_dtype ?? built.dtype],
  ];
  for (const [name, want, have] of asked) {
    if (want !== undefined && want !== have) {
      throw new EngineError('engine was built otherwise', {
        where: `${path}: ${name}`,
        expected: String(want),
        got: String(have),
        remedy: 'Leave the option out, or build the engine again from its checkpoint',
      });
    }
  }
  for (const name of ['maxAttentionWindow', 'sinkTokenLength'] as const) {
    const want = JSON.stringify(options.kvCacheConfig[name]);
    const have = JSON.stringify(name === 'maxAttentionWindow' ? built.max_attention_window : built.sink_token_length);
    if (want !== undefined && want !== have)
      throw new EngineError('engine was built otherwise', {
        where: `${path}: kvCacheConfig.${name}`,
        expected: have ?? 'it left out',
        got: want,
        remedy: 'Build the engine again from its checkpoint with it',
      });
  }
  const limits: readonly [string, number | undefined, number][] = [
    ['maxBatchSize', options.maxBatchSize, built.max_batch_size],
    ['maxNumTokens', options.maxNumTokens, built.max_num_tokens],
    ['maxSeqLen', options.maxSeqLen, built.max_seq_len],
  ];
  for (const [name, want, have] of limits) {
    if (want !== undefined && want > have) {
      throw new EngineError('engine was built for less', {
        where: `${path}: ${name}`,
        expected: `at most ${have}`,
        got: String(want),
        remedy: 'Build the engine again from its checkpoint with a greater limit',
      });
    }
  }
}

/** Finds or makes the engine of a model. */
export async function prepareEngine(model: string, options: PrepareOptions): Promise<PreparedEngine> {
  const path = await locateModel(model, options);
  if (isEngine(path)) {
    refuseMismatch(path, options);
    return { engineDir: path, built: false };
  }
  const {
    dtype,
    maxBatchSize,
    maxNumTokens,
    maxSeqLen,
    kvCacheConfig,
    tune,
    timingCache,
    cublaslt,
    quantConfig,
    signal,
  } = options;
  const { tokensPerBlock, dtype: kvCacheDType, maxAttentionWindow, sinkTokenLength } = kvCacheConfig;
  // The build looks at the signal whenever it reports: an aborted one leaves nothing behind.
  const progress: Progress = (event) => {
    signal?.throwIfAborted();
    options.progress(event);
  };
  const cacheDir = options.cacheDir ?? readEnv().cacheDir;
  const { loadFormat, seed = 0 } = options;
  using checkpoint = await openCheckpoint(path, { cacheDir, loadFormat, seed });
  options.signal?.throwIfAborted();
  const build: BuildConfig = {
    dtype,
    tokensPerBlock,
    ...(kvCacheDType === undefined ? {} : { kvCacheDType }),
    ...(maxAttentionWindow === undefined ? {} : { maxAttentionWindow }),
    ...(sinkTokenLength === undefined ? {} : { sinkTokenLength }),
    ...(maxBatchSize === undefined ? {} : { maxBatchSize }),
    ...(maxNumTokens === undefined ? {} : { maxNumTokens }),
    ...(maxSeqLen === undefined ? {} : { maxSeqLen }),
    ...(tune === undefined ? {} : { tune }),
    ...(timingCache === undefined ? {} : { timingCache }),
    ...(cublaslt === undefined ? {} : { cublaslt }),
    ...(quantConfig === undefined ? {} : { quantConfig }),
  };
  return await cachedEngine({
    checkpoint,
    target: findTarget(options.target, 'build'),
    build,
    cacheDir,
    progress,
  });
}
