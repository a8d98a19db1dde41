// activation(gate) · up becomes one op.
import { type Node, usersOf } from '../../define/graph/graph.ts';
import { rewrite } from '../../define/graph/rewrite.ts';
import type { Pass } from '../pass.ts';

export const fuseGated: Pass = {
  name: 'fuse-gated',
  does: 'joins an activation with the product that follows',
  run(graph) {
    const users = usersOf(graph);
    const outputs = new Set(Object.values(graph.outputs));
    /** Activations read by one `mul` only, by the id of their result. */
    const activations = new Map<number, Node<'activation'>>();
    for (const node of graph.nodes) {
      if (node.op !== 'activation' || outputs.has(node.outputs.y!)) continue;
      const readers = users.get(node.outputs.y!.id) ?? [];
      if (readers.length === 1 && readers[0]!.op === 'mul') activations.set(node.outputs.y!.id, node);
    }
    return rewrite(graph, (node, to) => {
      if (node.op === 'activation') return activations.has(node.outputs.y!.id);
      if (node.op !== 'mul') return false;
      const left = activations.get(node.inputs.a!.id);
      const right = activations.get(node.inputs.b!.id);
      const activation = left ?? right;
      if (activation === undefined || (left !== undefined && right !== undefined)) {
        // Both sides activated: nothing to join, so the activations swallowed above are put back here.
        for (const side of [left, right]) if (side !== undefined) to.copy(side);
        return false;
      }
      const up = left === undefined ? node.inputs.a! : node.inputs.b!;
      const { y } = to.builder.op(
        'gated',
        node.scope,
        { gate: to.get(activation.inputs.x!), up: to.get(up) },
        activation.attrs,
      );
      to.set(node.outputs.y!, y!);
      return true;
    });
  },
};
