// The pipeline: a list of passes, each verified.
import type { Graph } from '../define/graph/graph.ts';
import { verify } from '../define/graph/verify.ts';
import type { Pass } from './pass.ts';
import { canonicalise } from './passes/canonicalise.ts';
import { fuseGated } from './passes/fuse-gated.ts';
import { fuseResidualNorm } from './passes/fuse-residual-norm.ts';
import { lowerAttention } from './passes/lower-attention.ts';
import { mergeMatmuls } from './passes/merge-matmuls.ts';

/** The passes, in the order in which they run. */
export const pipeline: readonly Pass[] = [canonicalise, mergeMatmuls, fuseResidualNorm, fuseGated, lowerAttention];

/** Runs all passes; `observe` sees the graph after each. */
export function runPipeline(graph: Graph, observe: (pass: Pass, graph: Graph) => void = () => {}): Graph {
  return pipeline.reduce((current, pass) => {
    const next = verify(pass.run(current), pass.name);
    observe(pass, next);
    return next;
  }, graph);
}
