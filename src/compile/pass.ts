// What a pass is.
import type { Graph } from '../define/graph/graph.ts';
import type { Epilogue } from '../targets/target.ts';

/** A pure, named rewriting of the graph. Passes know ops, never models. */
export interface Pass {
  readonly name: string;
  /** One sentence for `typert inspect`. */
  readonly does: string;
  /** Gives the new graph; the old one stays as it is. */
  /** Runs only for targets that say they have this epilogue. */
  readonly needs?: Epilogue;
  /** The graph after it. */
  readonly run: (graph: Graph) => Graph;
}
