// A norm that only one product reads is computed as that product reads its rows, on targets whose products can.
import { type AnyNode, type Node, usersOf } from '../../define/graph/graph.ts';
import { rewrite } from '../../define/graph/rewrite.ts';
import type { Pass } from '../pass.ts';

export const fuseNormMatmul: Pass = {
  name: 'fuse-norm-matmul',
  does: 'norms rows inside the product that reads them',
  needs: 'norm-matmul',
  run(graph) {
    const users = usersOf(graph);
    const outputs = new Set(Object.values(graph.outputs));
    const norms = new Map<AnyNode, Node<'rmsnorm'>>();
    const gone = new Set<AnyNode>();
    for (const node of graph.nodes) {
      // A norm with a residual puts out a sum that others read.
      if (node.op !== 'rmsnorm' || node.inputs.residual !== undefined || outputs.has(node.outputs.y!)) continue;
      const [reader, ...others] = users.get(node.outputs.y!.id) ?? [];
      if (reader?.op !== 'matmul' || others.length > 0 || reader.attrs.norm !== undefined) continue;
      if (reader.inputs.residual === node.outputs.y) continue;
      norms.set(reader, node);
      gone.add(node);
    }
    return rewrite(graph, (node, to) => {
      if (gone.has(node)) return true;
      const norm = norms.get(node);
      if (norm === undefined || node.op !== 'matmul') return false;
      const inputs = Object.fromEntries(
        Object.entries({ ...node.inputs, x: norm.inputs.x!, normWeight: norm.inputs.weight }).map(([name, value]) => [
          name,
          value === undefined ? undefined : to.get(value),
        ]),
      );
      to.set(node.outputs.y!, to.builder.op('matmul', node.scope, inputs, { ...node.attrs, norm: norm.attrs }).y!);
      return true;
    });
  },
};
