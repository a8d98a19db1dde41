// `typert/nn`: the Model Definition API.

/** @module typert/nn */

export {
  concat,
  reshape,
  slice as sliceWeight,
  source,
  stack,
  transpose,
  values,
  type WeightExpr,
} from './checkpoint/weights.ts';
export type { Activation } from './graph/ops.ts';
export { Fields } from './models/fields.ts';
export type { BuildContext, ModelConfig, ModelDefinition } from './models/registry.ts';
export { registerModel } from './models/registry.ts';
export type { Captures, WeightMap, WeightRule } from './models/weight-map.ts';
export { Attention, type AttentionOptions, type QkNormOptions } from './nn/attention.ts';
export {
  Decoder,
  DecoderForCausalLM,
  type DecoderForCausalLMParts,
  DecoderLayer,
  type DecoderLayerParts,
  type DecoderParts,
} from './nn/decoder.ts';
export * as functional from './nn/functional.ts';
export {
  ColumnLinear,
  Embedding,
  LayerNorm,
  Linear,
  type LinearOptions,
  type Norm,
  RmsNorm,
  RowLinear,
} from './nn/layers.ts';
export { GatedMlp, Mlp, type MlpOptions, Moe, type MoeOptions } from './nn/mlp.ts';
export { assignNames, Module, Parameter, type ParameterOptions, parametersOf } from './nn/module.ts';
export { type RopeProblem, type RopeScaling, type RopeTable, ropeTable } from './nn/rope.ts';
export type { CausalLM, StepInputs } from './nn/step.ts';
export { Tensor } from './nn/tensor.ts';
export { type TraceOptions, traceModel } from './nn/trace.ts';
