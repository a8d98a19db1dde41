// `typert/engine`: compile checkpoints into engines, open and inspect them.

/** @module typert/engine */

export { type OpenOptions, openCheckpoint } from '../define/checkpoint/open.ts';
export { type Produced, type TensorToWrite, writeSafetensors } from '../define/checkpoint/safetensors-write.ts';
export type { Checkpoint, CheckpointFormat, TensorInfo, TensorSource } from '../define/checkpoint/tensors.ts';
export type { KnownModel } from '../define/models/bind.ts';
export { findTarget, targets } from '../targets/index.ts';
export type {
  KernelChoice,
  PackedWeight,
  Phase,
  Plan,
  PlanKernels,
  PlanLimits,
  PlanStep,
  PlanTactics,
  PlanTensor,
  Storage,
  Tactic,
} from '../targets/plan.ts';
export type {
  BlockCopies,
  CacheSupport,
  Device,
  DeviceMemory,
  DeviceOptions,
  Epilogue,
  HostArray,
  Prepared,
  PrepareOptions,
  Program,
  ProgramMemory,
  ProgramSource,
  Target,
  TargetName,
  TargetStatus,
  WeightFile,
  WeightPacker,
  WeightPacking,
} from '../targets/target.ts';
export { type BuildConfig, type BuildOptions, buildEngine, type Compiled, compile } from './build.ts';
export { type CachedEngine, cachedEngine } from './cache.ts';
export { type Engine, isEngine, openEngine } from './engine/read.ts';
export { type EngineConfig, engineVersion } from './engine/schema.ts';
export type { Arena, ArenaSlot } from './memory.ts';
export type { Pass } from './pass.ts';
export { pipeline, pipelineFor, runPipeline } from './pipeline.ts';
export { type QuantAlgo, type QuantConfig, quantAlgos } from './quantization.ts';
