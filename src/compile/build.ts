// Checkpoint → engine: the whole line of the compiler in one place.

import { debug } from '../base/debug.ts';
import { type FloatDType, isBlockDType } from '../base/dtype.ts';
import { CompileError } from '../base/errors.ts';
import { type Progress, silent } from '../base/progress.ts';
import { version } from '../base/version.ts';
import type { Checkpoint } from '../define/checkpoint/tensors.ts';
import { randomSeed } from '../define/checkpoint/weights.ts';
import type { Graph } from '../define/graph/graph.ts';
import { printGraph } from '../define/graph/print.ts';
import { verify } from '../define/graph/verify.ts';
import { bindModel, enginePolicy, identify, type KnownModel } from '../define/models/bind.ts';
import { toTypertConfig } from '../define/models/typert-checkpoint.ts';
import { traceModel } from '../define/nn/trace.ts';
import { type CacheDType, cacheDTypeOf, type Plan, type PlanTensor } from '../targets/plan.ts';
import type { Target } from '../targets/target.ts';
import { type EngineConfig, engineVersion } from './engine/schema.ts';
import { writeEngine } from './engine/write.ts';
import type { Arena } from './memory.ts';
import { limitWindows } from './passes/limit-windows.ts';
import { pipelineFor, runPipeline } from './pipeline.ts';
import { makePlan } from './plan.ts';
import type { QuantConfig } from './quantization.ts';

/** What a user may set; the rest follows from the model. TensorRT-LLM's build config, in camelCase. */
export interface BuildConfig {
  /** Dtype of activations; 'auto': the checkpoint's, where the target gains by it. */
  readonly dtype?: FloatDType | 'auto';
  /** Requests in one step. Default 64. */
  readonly maxBatchSize?: number;
  /** Tokens in one step. Default 2048, or maxSeqLen where that is less. */
  readonly maxNumTokens?: number;
  /** Tokens of one sequence. Default: the model's own limit, at most 32768. */
  readonly maxSeqLen?: number;
  /** Tokens in one block of the KV cache: a power of two. Default 32. */
  readonly tokensPerBlock?: number;
  /** Dtype of the KV cache; 'auto': what suits weights and activations on the target. */
  readonly kvCacheDType?: CacheDType | 'auto';
  /** Kernels' tactics are timed on the device, where the target has a choice. Default true; else heuristics choose. */
  readonly tune?: boolean;
  /** File of times measured before: read, and added to. Default: one in the cache folder. */
  readonly timingCache?: string;
  /** Products may go to cuBLASLt, where it is found. Default true. */
  readonly cublaslt?: boolean;
  /** Positions that each layer sees at most, repeated over the layers. Default: what the model says. */
  readonly maxAttentionWindow?: readonly number[];
  /** So many first positions stay visible in layers with a window (StreamingLLM). Default 0. */
  readonly sinkTokenLength?: number;
  /** Weights in fewer bits, and how they are multiplied. Default: weights keep the checkpoint's bits. */
  readonly quantConfig?: QuantConfig;
}

/** A model brought to a plan, with what was made on the way. */
export interface Compiled {
  readonly model: KnownModel;
  /** What was asked for. */
  readonly build: BuildConfig;
  readonly dtype: FloatDType;
  readonly maxSeqLen: number;
  readonly plan: Plan;
  readonly arena: Arena;
  /** The graph as traced, then after each pass, by name. */
  readonly stages: ReadonlyMap<string, Graph>;
  /** The last stage. */
  readonly graph: Graph;
}

const defaultSeqLen = 32768;

function positive(name: string, value: number): number {
  if (!Number.isInteger(value) || value < 1)
    throw new CompileError('not a size', { where: name, expected: 'a positive integer', got: String(value) });
  return value;
}

/** The KV cache's dtype: as asked for, where the target has it, or as the target sees fit. */
function chooseCache(build: BuildConfig, { name, cache }: Target, dtype: FloatDType, { weights }: Graph): CacheDType {
  const { kvCacheDType: asked = 'auto' } = build;
  if (asked === 'auto') {
    const wide = weights.every(({ value }) => value.dtype === 'float32');
    return cache?.auto(build.dtype ?? 'auto', wide) ?? dtype;
  }
  const there = cache?.dtypes ?? [dtype];
  if (!there.includes(asked))
    throw new CompileError(`target ${name} has no KV cache of this dtype`, {
      where: 'kvCacheDType',
      expected: there.join(', '),
      got: asked,
    });
  return asked;
}

/** Compiles a checkpoint's model for a target; no weights are read, only their names, dtypes and shapes. */
export function compile(checkpoint: Checkpoint, target: Target, build: BuildConfig = {}): Compiled {
  const model = identify(checkpoint);
  const { config } = model;
  const dtype = build.dtype === undefined || build.dtype === 'auto' ? target.computeDType(config.dtype) : build.dtype;
  const maxSeqLen = positive('maxSeqLen', build.maxSeqLen ?? Math.min(config.maxPositionEmbeddings, defaultSeqLen));
  const maxBatchSize = positive('maxBatchSize', build.maxBatchSize ?? 64);
  const maxNumTokens = positive(
    'maxNumTokens',
    build.maxNumTokens ?? Math.max(Math.min(2048, maxSeqLen), maxBatchSize),
  );
  const tokensPerBlock = positive('tokensPerBlock', build.tokensPerBlock ?? 32);
  if ((tokensPerBlock & (tokensPerBlock - 1)) !== 0)
    throw new CompileError('not a block size', {
      where: 'tokensPerBlock',
      expected: 'a power of two',
      got: String(tokensPerBlock),
    });
  if (maxNumTokens < maxBatchSize) {
    throw new CompileError('a step must hold a token of every request', {
      where: 'maxNumTokens',
      expected: `at least maxBatchSize (${maxBatchSize})`,
      got: String(maxNumTokens),
    });
  }
  const maxBlocksPerSequence = Math.ceil(maxSeqLen / tokensPerBlock);
  const stages = new Map<string, Graph>();
  const bound = bindModel(model, checkpoint, maxSeqLen, enginePolicy(dtype, target.keepsBlocks));
  const traced = traceModel(bound, { name: config.architecture, dtype, maxBlocksPerSequence });
  stages.set('trace', traced);
  const limited = limitWindows(build);
  const start = limited === undefined ? traced : verify(limited.run(traced), limited.name);
  if (limited !== undefined) stages.set(limited.name, start);
  const passes = pipelineFor(build.quantConfig);
  const graph = runPipeline(
    start,
    target.epilogues,
    (pass, after) => {
      stages.set(pass.name, after);
      debug(3, () => `pass ${pass.name}: ${after.nodes.length} nodes`);
    },
    passes,
  );
  const unfit = graph.weights.find(({ value }) => isBlockDType(value.dtype) && !target.keepsBlocks(value.dtype));
  if (unfit !== undefined)
    throw new CompileError(`target ${target.name} has no kernels for weights of this kind`, {
      where: unfit.value.name,
      got: unfit.value.dtype,
      remedy: 'Leave the quantisation out, or use another target (--target cpu)',
    });
  debug(4, () => printGraph(graph));
  const limits = { maxBatchSize, maxNumTokens, maxNumLogits: Math.max(maxBatchSize, Math.min(64, maxNumTokens)) };
  const cacheDType = chooseCache(build, target, dtype, graph);
  const { plan, arena } = makePlan(graph, { target, dtype, cacheDType, limits, tokensPerBlock, maxBlocksPerSequence });
  return { model, build, dtype, maxSeqLen, plan, arena, stages, graph };
}

/** Options of `buildEngine`. */
export interface BuildOptions {
  readonly checkpoint: Checkpoint;
  readonly target: Target;
  readonly engineDir: string;
  readonly build?: BuildConfig;
  readonly progress?: Progress;
}

/** Builds an engine folder. Returns what was compiled and the bytes written. */
export async function buildEngine({
  checkpoint,
  target,
  engineDir,
  build = {},
  progress = silent,
}: BuildOptions): Promise<Compiled & { readonly bytes: number }> {
  const compiled = compile(checkpoint, target, build);
  const bytes = await writeCompiled({ checkpoint, target, engineDir, compiled, build, progress });
  return { ...compiled, bytes };
}

/** Writes what was compiled, with the checkpoint's weights, as an engine folder. Returns the bytes written. */
export async function writeCompiled(parts: {
  readonly checkpoint: Checkpoint;
  readonly target: Target;
  readonly engineDir: string;
  readonly compiled: Compiled;
  readonly build: BuildConfig;
  readonly progress: Progress;
}): Promise<number> {
  const { checkpoint, target, engineDir, compiled, build, progress } = parts;
  const { model, dtype, maxSeqLen, graph } = compiled;
  const plan = withRandom(compiled.plan, graph, target);
  const config: EngineConfig = {
    version: engineVersion,
    producer: { name: 'typert', version: version },
    pretrained_config: {
      ...(toTypertConfig(model.config) as EngineConfig['pretrained_config']),
      ...(compiled.build.quantConfig === undefined
        ? {}
        : { quantization: quantizationJson(compiled.build.quantConfig) }),
    },
    build_config: {
      target: target.name,
      dtype,
      max_batch_size: plan.limits.maxBatchSize,
      max_num_tokens: plan.limits.maxNumTokens,
      max_seq_len: maxSeqLen,
      max_num_logits: plan.limits.maxNumLogits,
      tokens_per_block: plan.tokensPerBlock,
      kv_cache_dtype: cacheDTypeOf(plan),
      ...(compiled.build.maxAttentionWindow === undefined
        ? {}
        : { max_attention_window: [...compiled.build.maxAttentionWindow] }),
      ...(compiled.build.sinkTokenLength === undefined ? {} : { sink_token_length: compiled.build.sinkTokenLength }),
    },
  };
  debug(1, () => `building ${model.config.architecture} for ${target.name} into ${engineDir}`);
  const prepared = await target.prepare?.(plan, { ...build, progress });
  using packer = await target.packing?.open(plan);
  const packed = packedPlan(prepared?.plan ?? plan, target);
  return await writeEngine(
    engineDir,
    {
      config,
      plan: packed,
      weights: graph.weights,
      tensors: checkpoint.tensors,
      assets: checkpoint.assets,
      extras: prepared?.tensors ?? new Map(),
      ...(packer === undefined ? {} : { packer }),
    },
    progress,
  );
}

/** The quantisation in TensorRT-LLM's words. */
function quantizationJson({ quantAlgo, groupSize = 32, hasZeroPoint = false, ...rest }: QuantConfig): object {
  const { excludeModules = ['lm_head'], activations = 'auto' } = rest;
  return {
    quant_algo: quantAlgo ?? null,
    ...(quantAlgo === undefined
      ? {}
      : { group_size: groupSize, has_zero_point: hasZeroPoint, exclude_modules: excludeModules }),
    activations,
  };
}

/** The plan with the weights marked that the device makes itself. */
function withRandom(plan: Plan, { weights }: Graph, target: Target): Plan {
  if (target.makesRandomWeights !== true) return plan;
  const seeds = new Map(weights.map(({ value, from }) => [value.name, randomSeed(from)]));
  const tensors = plan.tensors.map((tensor): PlanTensor => {
    const seed = tensor.storage.kind === 'weight' ? seeds.get(tensor.name) : undefined;
    return seed === undefined ? tensor : { ...tensor, storage: { kind: 'weight', random: seed } };
  });
  return { ...plan, tensors };
}

/** The plan as the engine holds it: with each weight's layout. */
function packedPlan(plan: Plan, { packing }: Target): Plan {
  if (packing === undefined) return plan;
  const stored = packing.stored(plan);
  const tensors = plan.tensors.map((tensor, index): PlanTensor => {
    const packed = stored.get(index);
    return packed === undefined ? tensor : { ...tensor, storage: { kind: 'weight', packed } };
  });
  return { ...plan, tensors };
}
