// Weights of one content become one weight: tied embeddings, rotary frequencies of all layers.
import { type Graph, GraphBuilder, type Value } from '../../define/graph/graph.ts';
import type { Pass } from '../pass.ts';

export const canonicalise: Pass = {
  name: 'canonicalise',
  does: 'joins weights that hold the same numbers',
  run(graph: Graph): Graph {
    const builder = new GraphBuilder(graph.name);
    const map = new Map<number, Value>();
    const byContent = new Map<string, Value>();
    for (const input of graph.inputs) map.set(input.id, builder.input(input.name, input.dtype, input.shape));
    for (const { value, from, split } of graph.weights) {
      const key = JSON.stringify([value.dtype, value.shape, from]);
      const same = byContent.get(key) ?? builder.weight(value.name, value.dtype, value.shape, from, split);
      byContent.set(key, same);
      map.set(value.id, same);
    }
    for (const cache of graph.caches) builder.cache(cache);
    for (const node of graph.nodes) {
      const inputs = Object.fromEntries(Object.entries(node.inputs).map(([name, value]) => [name, map.get(value.id)]));
      const outputs = builder.op(node.op, node.scope, inputs, node.attrs);
      for (const [name, value] of Object.entries(node.outputs)) map.set(value.id, outputs[name]!);
    }
    return builder.finish(
      Object.fromEntries(Object.entries(graph.outputs).map(([name, value]) => [name, map.get(value.id)!])),
    );
  },
};
