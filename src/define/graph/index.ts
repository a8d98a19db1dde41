// `typert/graph`: the graph that models are traced into and the compiler works on.

/** @module typert/graph */

export type { Expr, Shape } from '../../base/expr.ts';
export type {
  AttentionAttrs,
  CacheSpec,
  HeadNorm,
  PagedAttentionAttrs,
  RopeAttrs,
  RopeCacheAttrs,
} from './attention.ts';
export {
  type AnyNode,
  type Graph,
  GraphBuilder,
  type GraphWeight,
  type Node,
  type Value,
  type WeightSplit,
} from './graph.ts';
export { type Activation, inputNames, type Op, type OpAttrs, ops, type TensorType } from './ops.ts';
export { printDot, printGraph, printMermaid } from './print.ts';
export { type Rewriter, rewrite } from './rewrite.ts';
export { verify } from './verify.ts';
