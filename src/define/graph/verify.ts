// The verifier: run after tracing and after every pass.
import { GraphError } from '../../base/errors.ts';
import { printShape, sameShape } from '../../base/expr.ts';
import type { Graph, Value } from './graph.ts';
import { inferOp, ops } from './ops.ts';

/** Throws GraphError when a value is used before it is made, made twice, or has another type than its op's rule gives; `after` names the pass. */
export function verify(graph: Graph, after: string): Graph {
  const where = (what: string) => `${graph.name} after ${after}: ${what}`;
  const defined = new Map<number, Value>();
  const define = (value: Value, by: string) => {
    if (defined.has(value.id))
      throw new GraphError('value defined twice', { where: where(by), got: `%${value.id} ${value.name}` });
    defined.set(value.id, value);
  };
  const use = (value: Value, by: string) => {
    if (defined.get(value.id) !== value)
      throw new GraphError('value used before it is defined', { where: where(by), got: `%${value.id} ${value.name}` });
  };
  for (const input of graph.inputs) define(input, 'inputs');
  const names = new Set<string>();
  for (const { value } of graph.weights) {
    if (names.has(value.name))
      throw new GraphError('two weights of one name', { where: where('weights'), got: value.name });
    names.add(value.name);
    define(value, 'weights');
  }
  const layers = new Set(graph.caches.map(({ layer }) => layer));
  const written = new Set<number>();
  for (const node of graph.nodes) {
    for (const value of Object.values(node.inputs)) use(value, node.scope);
    const types = inferOp(node.op, node.inputs, node.attrs, where(node.scope));
    for (const [name, type] of Object.entries(types)) {
      const value = node.outputs[name];
      if (value === undefined || value.dtype !== type.dtype || !sameShape(value.shape, type.shape)) {
        throw new GraphError('output does not follow the shape rule', {
          where: where(`${node.scope}.${name} (${node.op})`),
          expected: `${type.dtype}${printShape(type.shape)}`,
          got: value === undefined ? 'nothing' : `${value.dtype}${printShape(value.shape)}`,
        });
      }
      define(value, node.scope);
    }
    if ('layer' in node.attrs) {
      const { layer } = node.attrs;
      if (!layers.has(layer))
        throw new GraphError('no cache for this layer', { where: where(node.scope), got: `layer ${layer}` });
      const { cache } = ops[node.op];
      if (cache === 'write') written.add(layer);
      if (cache === 'read' && !written.has(layer))
        throw new GraphError('cache read before it is written', { where: where(node.scope), got: `layer ${layer}` });
    }
  }
  for (const [name, value] of Object.entries(graph.outputs)) use(value, `output ${name}`);
  return graph;
}
