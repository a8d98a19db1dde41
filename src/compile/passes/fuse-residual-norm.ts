// add → norm becomes one norm with a residual input, which puts out the sum as well.
import { type AnyNode, usersOf } from '../../define/graph/graph.ts';
import { rewrite } from '../../define/graph/rewrite.ts';
import type { Pass } from '../pass.ts';

export const fuseResidualNorm: Pass = {
  name: 'fuse-residual-norm',
  does: 'adds the residual inside the norm that follows',
  run(graph) {
    const users = usersOf(graph);
    /** The add that a norm swallows, by the norm. */
    const swallowed = new Map<AnyNode, AnyNode>();
    const gone = new Set<AnyNode>();
    for (const node of graph.nodes) {
      if (node.op !== 'add') continue;
      const readers = users.get(node.outputs.y!.id) ?? [];
      // The norm must be the sum's first reader: the others then find the sum that it puts out.
      const first = readers[0];
      if (
        first === undefined ||
        (first.op !== 'rmsnorm' && first.op !== 'layernorm') ||
        first.inputs.residual !== undefined
      )
        continue;
      swallowed.set(first, node);
      gone.add(node);
    }
    return rewrite(graph, (node, to) => {
      if (gone.has(node)) return true;
      const add = swallowed.get(node);
      if (add === undefined || (node.op !== 'rmsnorm' && node.op !== 'layernorm')) return false;
      const inputs = Object.fromEntries(
        Object.entries(node.inputs).map(([name, value]) => [
          name,
          name === 'x' ? to.get(add.inputs.b!) : to.get(value),
        ]),
      );
      const outputs = to.builder.op(node.op, node.scope, { ...inputs, residual: to.get(add.inputs.a!) }, node.attrs);
      to.set(node.outputs.y!, outputs.y!);
      to.set(add.outputs.y!, outputs.sum!);
      return true;
    });
  },
};
