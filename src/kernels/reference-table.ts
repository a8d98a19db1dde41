// The reference kernel of every op that reaches a plan. An op without an entry does not compile.
import type { Op } from '../define/graph/ops.ts';
import { pagedAttention, ropeAttention, ropeCache } from './attention/reference.ts';
import { embedding } from './embedding/reference.ts';
import { gatherRows } from './gather/reference.ts';
import { matmul } from './matmul/reference.ts';
import { moeExperts, moeRoute } from './moe/reference.ts';
import { layernorm, rmsnorm } from './norm/reference.ts';
import { activation, add, gated, mul, scale, softcap } from './pointwise/reference.ts';
import type { ReferenceKernel } from './reference.ts';
import { sample } from './sample/kernel.ts';

/** Ops that the pipeline always removes before the plan: views and what is lowered. */
export type LoweredOp = 'slice' | 'attention';
export type KernelOp = Exclude<Op, LoweredOp>;
/** Those that every target has: the others the pipeline makes only for targets that ask for them (target.epilogues). */
export type PlainOp = Exclude<KernelOp, 'ropeAttention'>;

export const referenceKernels: { readonly [K in KernelOp]: ReferenceKernel<K> } = {
  embedding,
  matmul,
  rmsnorm,
  layernorm,
  activation,
  gated,
  add,
  mul,
  scale,
  softcap,
  gatherRows,
  ropeCache,
  pagedAttention,
  ropeAttention,
  moeRoute,
  moeExperts,
  sample,
};
