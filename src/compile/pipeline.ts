// The pipeline: a list of passes, each verified.
import type { Graph } from '../define/graph/graph.ts';
import { verify } from '../define/graph/verify.ts';
import type { Epilogue } from '../targets/target.ts';
import type { Pass } from './pass.ts';
import { canonicalise } from './passes/canonicalise.ts';
import { fuseGated } from './passes/fuse-gated.ts';
import { fuseGatedMatmul } from './passes/fuse-gated-matmul.ts';
import { fuseNormMatmul } from './passes/fuse-norm-matmul.ts';
import { fuseResidualMatmul } from './passes/fuse-residual-matmul.ts';
import { fuseResidualNorm } from './passes/fuse-residual-norm.ts';
import { fuseRopeAttention } from './passes/fuse-rope-attention.ts';
import { groupCachesPass } from './passes/group-caches.ts';
import { lowerAttention } from './passes/lower-attention.ts';
import { mergeMatmuls } from './passes/merge-matmuls.ts';
import { floatActivations, quantizeWeights } from './passes/quantize-weights.ts';
import { type QuantConfig, weightQuantization } from './quantization.ts';

/** The passes, in the order in which they run. */
export const pipeline: readonly Pass[] = [
  canonicalise,
  mergeMatmuls,
  fuseResidualMatmul,
  fuseResidualNorm,
  fuseGated,
  fuseGatedMatmul,
  fuseNormMatmul,
  lowerAttention,
  groupCachesPass,
  fuseRopeAttention,
];

/** The passes of a build that quantises. */
export function pipelineFor(config: QuantConfig = {}): readonly Pass[] {
  const quantization = weightQuantization(config);
  const floats = config.activations === 'float';
  if (quantization === undefined && !floats) return pipeline;
  const [first, ...rest] = pipeline;
  return [
    first!,
    ...(quantization === undefined ? [] : [quantizeWeights(quantization)]),
    ...rest,
    ...(floats ? [floatActivations] : []),
  ];
}

/** Runs the passes that suit a target with these epilogues; `observe` sees the graph after each. */
export function runPipeline(
  graph: Graph,
  epilogues: readonly Epilogue[] = [],
  observe: (pass: Pass, graph: Graph) => void = () => {},
  passes: readonly Pass[] = pipeline,
): Graph {
  const wanted = passes.filter(({ needs }) => needs === undefined || epilogues.includes(needs));
  return wanted.reduce((current, pass) => {
    const next = verify(pass.run(current), pass.name);
    observe(pass, next);
    return next;
  }, graph);
}
