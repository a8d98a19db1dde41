// Options that several commands share, and the parsing of their values.

import { fileURLToPath } from 'node:url';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { Progress } from '../base/progress.ts';
import type { BuildConfig } from '../compile/build.ts';
import type { QuantConfig } from '../compile/quantization.ts';
import type { GroupSize } from '../define/checkpoint/group-blocks.ts';
import { locateModel } from '../llm/load.ts';
import type { LLMOptions } from '../llm/options.ts';
import type { SamplingParams } from '../run/decode/sampling-params.ts';
import { type CacheDType, cacheDTypes } from '../targets/plan.ts';

/** The model that comes with the package: what runs when none is named. */
export const bundledModel = fileURLToPath(new URL('../../models/storyteller-7m', import.meta.url));

export function integer(text: string): number {
  if (!/^-?\d+$/.test(text)) throw new InvalidArgumentError('expected an integer.');
  return Number(text);
}

export function number(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || Number.isNaN(value)) throw new InvalidArgumentError('expected a number.');
  return value;
}

/** Adds what decides how a model is built. */
export function buildOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--target <name>', 'where the engine runs')
        .choices(['auto', 'cuda', 'cpu', 'reference'])
        .default('auto'),
    )
    .addOption(
      new Option('--dtype <dtype>', 'dtype of activations')
        .choices(['auto', 'float32', 'bfloat16', 'float16'])
        .default('auto'),
    )
    .option('--max-batch-size <n>', 'requests in one step', integer)
    .option('--max-num-tokens <n>', 'tokens in one step', integer)
    .option('--max-seq-len <n>', 'tokens of one request, prompt and output', integer)
    .addOption(
      new Option('--load-format <format>', 'dummy: random weights; the model is then a config.json or its folder')
        .choices(['auto', 'dummy'])
        .default('auto'),
    )
    .option('--tokens-per-block <n>', 'tokens in a block of the KV cache: a power of two', integer)
    .addOption(
      new Option(
        '--kv-cache-dtype <dtype>',
        'dtype of the KV cache (default: narrow where weights are narrow)',
      ).choices(['auto', ...cacheDTypes]),
    )
    .addOption(
      new Option('--weight-only <bits>', "keep products' weights in fewer bits, round-to-nearest").choices([
        'int8',
        'int4',
      ]),
    )
    .addOption(
      new Option('--group-size <n>', 'columns of a quantised weight that share a scale (default: 32)').choices([
        '32',
        '64',
        '128',
      ]),
    )
    .option('--zero-point', 'give groups a minimum besides their scale')
    .option('--exclude-modules <names...>', 'modules whose weights stay as they are (default: lm_head)')
    .addOption(
      new Option(
        '--activations <kind>',
        'what quantised weights are multiplied with; float is more exact and slower',
      ).choices(['auto', 'float']),
    )
    .option('--no-tune', 'choose kernels by rule of thumb instead of timing them on the device')
    .option('--timing-cache <file>', 'times measured before, as JSON: read, and added to')
    .option('--no-cublaslt', 'use own kernels alone');
}

/** A number of bytes ('20GB', '512MB', decimal units), or a share from 0 to 1. */
export function memorySize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kMGT]?i?B?)$/.exec(text.trim());
  const power = { '': 0, k: 1, M: 2, G: 3, T: 4 }[match?.[2]?.charAt(0).replace('B', '') ?? ''];
  if (match === null || power === undefined || Number(match[1]) === 0)
    throw new InvalidArgumentError("expected a size such as '20GB', or a share such as 0.5.");
  return Number(match[1]) * (match[2]!.includes('i') ? 1024 : 1000) ** power;
}

/** Adds what decides how an engine is run. */
export function runtimeOptions(command: Command): Command {
  return command
    .option('--device <n>', 'which of several GPUs', integer)
    .option('--gpu-memory <size>', "all that may be taken on the GPU: '20GB', or a share such as 0.5", memorySize)
    .option('--kv-cache-tokens <n>', 'tokens the KV cache holds over all requests (default: from free memory)', integer)
    .option('--kv-cache-free-gpu-mem-fraction <share>', 'share of the free memory that the KV cache may take', number)
    .option('--disable-overlap-scheduler', 'each step waits for the one before it')
    .option('--stream-interval <n>', 'tokens of a request that are streamed together (default: 1)', integer);
}

export interface RuntimeFlags {
  readonly device?: number;
  readonly gpuMemory?: number;
  readonly kvCacheTokens?: number;
  readonly kvCacheFreeGpuMemFraction?: number;
  readonly disableOverlapScheduler?: boolean;
  readonly streamInterval?: number;
}

/** Adds what decides where a model comes from. */
export function sourceOptions(command: Command): Command {
  return command
    .option('--revision <rev>', 'branch, tag or commit of a model on the hub')
    .option('--token <token>', 'hub access token (default: HF_TOKEN)');
}

export interface BuildFlags {
  readonly target: NonNullable<LLMOptions['target']>;
  readonly dtype: NonNullable<LLMOptions['dtype']>;
  readonly maxBatchSize?: number;
  readonly maxNumTokens?: number;
  readonly maxSeqLen?: number;
  readonly tokensPerBlock?: number;
  readonly kvCacheDtype?: CacheDType | 'auto';
  readonly tune?: boolean;
  readonly timingCache?: string;
  readonly cublaslt?: boolean;
  readonly weightOnly?: 'int8' | 'int4';
  readonly groupSize?: string;
  readonly zeroPoint?: boolean;
  readonly excludeModules?: readonly string[];
  readonly activations?: 'auto' | 'float';
  readonly loadFormat?: NonNullable<LLMOptions['loadFormat']>;
  readonly revision?: string;
  readonly token?: string;
}

/** The flags of quantisation, if any were given. */
function quantFlags(flags: BuildFlags): { readonly quantConfig?: QuantConfig } {
  const { weightOnly, groupSize, zeroPoint, excludeModules, activations } = flags;
  const quantConfig = given({
    quantAlgo: weightOnly === undefined ? undefined : ({ int8: 'W8A16', int4: 'W4A16' } as const)[weightOnly],
    groupSize: groupSize === undefined ? undefined : (Number(groupSize) as GroupSize),
    hasZeroPoint: zeroPoint,
    excludeModules,
    activations,
  });
  return Object.keys(quantConfig).length === 0 ? {} : { quantConfig };
}

/** The flags that were given, without those that were not. */
function given<T extends object>(flags: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(flags).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}

/** The flags as a build config. */
export function toBuildConfig(flags: BuildFlags): BuildConfig {
  const { dtype, maxBatchSize, maxNumTokens, maxSeqLen, tokensPerBlock, kvCacheDtype, tune, timingCache, cublaslt } =
    flags;
  return {
    dtype,
    ...given({
      maxBatchSize,
      maxNumTokens,
      maxSeqLen,
      tokensPerBlock,
      kvCacheDType: kvCacheDtype,
      tune,
      timingCache,
      cublaslt,
    }),
    ...quantFlags(flags),
  };
}

/** The local path of the model that was named, downloaded when it is an id. */
export async function locate(
  model: string,
  { revision, token }: Pick<BuildFlags, 'revision' | 'token'>,
  progress: Progress,
): Promise<string> {
  return await locateModel(model, { progress, ...given({ revision, token }) });
}

/** The flags as LLM options. */
export function toLLMOptions(flags: BuildFlags & RuntimeFlags): LLMOptions {
  const { tokensPerBlock, kvCacheTokens, target, dtype, maxBatchSize, maxNumTokens, maxSeqLen, revision, token } =
    flags;
  const { tune, timingCache, cublaslt, loadFormat, kvCacheDtype } = flags;
  const { device, gpuMemory, disableOverlapScheduler, streamInterval, kvCacheFreeGpuMemFraction } = flags;
  return {
    target,
    dtype,
    ...given({ maxBatchSize, maxNumTokens, maxSeqLen, tune, timingCache, cublaslt, revision, token }),
    ...quantFlags(flags),
    ...given({ device, gpuMemory, disableOverlapScheduler, streamInterval, loadFormat }),
    kvCacheConfig: {
      ...(tokensPerBlock === undefined ? {} : { tokensPerBlock }),
      ...(kvCacheTokens === undefined ? {} : { maxTokens: kvCacheTokens }),
      ...given({ freeGpuMemoryFraction: kvCacheFreeGpuMemFraction, dtype: kvCacheDtype }),
    },
  };
}

/** Adds sampling flags, in the words of the sampling parameters. */
export function samplingOptions(command: Command): Command {
  return command
    .option('-n, --max-tokens <n>', 'tokens to generate at most (default: as many as fit)', integer)
    .option('--temperature <t>', '0 takes the likeliest token each time', number)
    .option('--top-k <k>', 'sample among the k likeliest tokens', integer)
    .option('--top-p <p>', 'sample among the likeliest tokens that make up p', number)
    .option('--min-p <p>', 'drop tokens less likely than p times the likeliest', number)
    .option('--repetition-penalty <r>', 'above 1 discourages repetition', number)
    .option('--seed <n>', 'the same seed gives the same text', integer)
    .option('--stop <text...>', 'end when this text appears');
}

export interface SamplingFlags {
  readonly maxTokens?: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly seed?: number;
  readonly stop?: readonly string[];
}

/** Flags over what the model recommends: a flag that chooses tokens replaces all of the recommendation. */
export function toSamplingParams(flags: SamplingFlags, recommended: SamplingParams): SamplingParams {
  const { maxTokens, temperature, topK, topP, minP, repetitionPenalty, seed, stop } = flags;
  const set = given({ maxTokens, temperature, topK, topP, minP, repetitionPenalty, seed, stop });
  const chosen = [temperature, topK, topP, minP].some((value) => value !== undefined);
  return { ...(chosen ? {} : recommended), ...set };
}
