// Attention of a step as launches: prompts, generation, and what comes before them, apart or in one.
import type { PagedAttentionAttrs, RopeCacheAttrs } from '../../define/graph/attention.ts';
import {
  type AttentionConfig,
  type AttentionProblem,
  attentionLaunch,
  attentionWorkspace,
  decodeRows,
  withFreshHeads,
} from '../../kernels/attention/cuda.ts';
import { ropeCacheLaunch } from '../../kernels/attention/cuda-rope.ts';
import type { Buffers } from './launch.ts';
import { type BoundLaunch, bind, type Maker, pointers, type StepTensor, type StepView } from './step.ts';

function attentionProblem(step: StepView, attrs: PagedAttentionAttrs, q: StepTensor): AttentionProblem {
  return {
    dtype: step.dtype,
    tokens: q.rows,
    requests: step.tensor('contextLengths').columns,
    heads: attrs.numHeads,
    kvHeads: attrs.numKvHeads,
    headDim: attrs.headDim,
    valueDim: attrs.valueDim,
    ldq: q.stride,
    ldy: step.tensor('y').stride,
    tokensPerBlock: step.tokensPerBlock,
    maxBlocksPerSequence: step.tensor('blockTables').columns,
    numBlocks: step.numBlocks,
    scale: attrs.scale,
    ...(attrs.softcap === undefined ? {} : { softcap: attrs.softcap }),
    ...(attrs.window === undefined ? {} : { window: attrs.window }),
    ...(attrs.chunk === undefined ? {} : { chunk: attrs.chunk }),
    ...(attrs.sinkTokens === undefined ? {} : { sinkTokens: attrs.sinkTokens }),
    sinks: step.optional('sinks') !== undefined,
    alibi: step.optional('slopes') !== undefined,
  };
}

const attentionInputs = ['y', 'sinks', 'slopes', 'positions', 'requestOffsets', 'contextLengths', 'blockTables'];

function attentionBound(
  step: StepView,
  problem: AttentionProblem,
  config: AttentionConfig,
  skip: number,
  buffers: Buffers,
): BoundLaunch {
  const { partial, counters } = attentionWorkspace(problem, config);
  const workspace = partial === 0 ? {} : { partial: step.scratch(partial), counters: step.counters(counters) };
  const inputs = pointers(step, Object.fromEntries(attentionInputs.map((name) => [name, name])));
  return { launch: attentionLaunch(problem, config, skip), buffers: { ...inputs, ...buffers, ...workspace } };
}

/** Attention over the cache of queries that are rotated already. */
export function pagedAttention(step: StepView, attrs: PagedAttentionAttrs, q: StepTensor): readonly BoundLaunch[] {
  const problem = attentionProblem(step, attrs, q);
  const { tokens, requests } = problem;
  const make = (config: AttentionConfig, skip: number): BoundLaunch =>
    attentionBound(step, problem, config, skip, { q: q.ptr, cache: step.cache(attrs.layer) });
  const decode = step.tactics.decode(problem);
  if (decode.kind === 'plain') return [make(step.tactics.prefill(problem), 0)];
  if (tokens === requests) return [make(decode, 0)];
  const prefill = step.tactics.prefill(problem);
  // The plain kernel computes every token, so that nothing is left to the decode kernel.
  if (prefill.kind === 'plain') return [make(prefill, 0)];
  return [make(prefill, decodeRows), make(decode, 0)];
}

const headInputs = { q: 'q', k: 'k', v: 'v', qNorm: 'qNorm', kNorm: 'kNorm', frequencies: 'frequencies' };

/** Norm and rotation of q and k, k and v into the cache, the rotated q into `y`. */
export function ropeCache(step: StepView, attrs: RopeCacheAttrs, y: StepTensor): readonly BoundLaunch[] {
  const [q, k, v] = [step.tensor('q'), step.tensor('k'), step.tensor('v')];
  const launch = ropeCacheLaunch({
    dtype: step.dtype,
    attrs,
    tokens: q.rows,
    ldq: q.stride,
    ldk: k.stride,
    ldv: v.stride,
    ldy: y.stride,
    tokensPerBlock: step.tokensPerBlock,
  });
  const names = { ...headInputs, positions: 'positions', slots: 'cacheSlots' };
  return bind(launch, { ...pointers(step, names), y: y.ptr, cache: step.cache(attrs.layer) });
}

/** Steps of one token a request are one launch where the decode kernel takes their heads as they come. */
export const ropeAttention: Maker<'ropeAttention'> = (step, attrs) => {
  const [q, k, v] = [step.tensor('q'), step.tensor('k'), step.tensor('v')];
  const problem = attentionProblem(step, attrs, q);
  if (problem.tokens === problem.requests) {
    const fresh = { norm: attrs.norm, rope: attrs.rope, ldk: k.stride, ldv: v.stride };
    const config = withFreshHeads(problem, step.tactics.decode(problem), fresh, step.arch);
    if (config !== undefined) {
      const buffers = pointers(step, { ...headInputs, slots: 'cacheSlots' });
      return [attentionBound(step, problem, config, 0, { ...buffers, cache: step.cache(attrs.layer) })];
    }
  }
  const rotated = step.tensor('rotated');
  return [...ropeCache(step, attrs, rotated), ...pagedAttention(step, attrs, rotated)];
};
