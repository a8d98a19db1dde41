// `typert/engine`: compile checkpoints into engines, open and inspect them.

/** @module typert/engine */

export { openCheckpoint } from '../define/checkpoint/open.ts';
export type { Checkpoint } from '../define/checkpoint/tensors.ts';
export { findTarget, targets } from '../targets/index.ts';
export type { Plan, PlanStep, PlanTensor } from '../targets/plan.ts';
export type { Target, TargetName } from '../targets/target.ts';
export { type BuildConfig, type BuildOptions, buildEngine, type Compiled, compile } from './build.ts';
export { cachedEngine } from './cache.ts';
export { type Engine, isEngine, openEngine } from './engine/read.ts';
export { type EngineConfig, engineVersion } from './engine/schema.ts';
export type { Pass } from './pass.ts';
export { pipeline, runPipeline } from './pipeline.ts';
