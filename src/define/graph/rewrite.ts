// The frame of a pass: walks a graph in order and builds a new one, node by node.
import type { CacheSpec } from './attention.ts';
import { type AnyNode, type Graph, GraphBuilder, type Value } from './graph.ts';

/** What a pass sees while the new graph grows. */
export interface Rewriter {
  readonly graph: Graph;
  readonly builder: GraphBuilder;
  /** The new graph's value for a value of the old one. */
  get(value: Value): Value;
  /** Says which new value stands for an old one. */
  set(old: Value, value: Value): void;
  /** Copies a node as it is. */
  copy(node: AnyNode): void;
}

/**
 * Builds a new graph; `visit` returns true when it has dealt with the node (set every output that is still used), else the node is copied. `caches`: those of the new graph, where
 * they differ.
 */
export function rewrite(
  graph: Graph,
  visit: (node: AnyNode, to: Rewriter) => boolean,
  caches: readonly CacheSpec[] = graph.caches,
): Graph {
  const builder = new GraphBuilder(graph.name);
  const map = new Map<number, Value>();
  const to: Rewriter = {
    graph,
    builder,
    get(value) {
      return map.get(value.id)!;
    },
    set(old, value) {
      map.set(old.id, value);
    },
    copy(node) {
      const inputs = Object.fromEntries(Object.entries(node.inputs).map(([name, value]) => [name, to.get(value)]));
      const outputs = builder.op(node.op, node.scope, inputs, node.attrs);
      for (const [name, value] of Object.entries(node.outputs)) to.set(value, outputs[name]!);
    },
  };
  for (const input of graph.inputs) to.set(input, builder.input(input.name, input.dtype, input.shape));
  for (const { value, from, split } of graph.weights)
    to.set(value, builder.weight(value.name, value.dtype, value.shape, from, split));
  for (const cache of caches) builder.cache(cache);
  for (const node of graph.nodes) if (!visit(node, to)) to.copy(node);
  return builder.finish(
    Object.fromEntries(Object.entries(graph.outputs).map(([name, value]) => [name, to.get(value)])),
  );
}
