// The cache write and the read of attention become one op again, on targets that have a kernel for both.
import { type AnyNode, type Node, usersOf } from '../../define/graph/graph.ts';
import { rewrite } from '../../define/graph/rewrite.ts';
import type { Pass } from '../pass.ts';

export const fuseRopeAttention: Pass = {
  name: 'fuse-rope-attention',
  does: 'joins norm, rotation and cache write with the attention that follows',
  needs: 'rope-attention',
  run(graph) {
    const users = usersOf(graph);
    const writes = new Map<AnyNode, Node<'ropeCache'>>();
    const gone = new Set<AnyNode>();
    for (const node of graph.nodes) {
      if (node.op !== 'ropeCache') continue;
      const [reader, ...others] = users.get(node.outputs.y!.id) ?? [];
      if (reader?.op !== 'pagedAttention' || others.length > 0 || reader.attrs.layer !== node.attrs.layer) continue;
      writes.set(reader, node);
      gone.add(node);
    }
    return rewrite(graph, (node, to) => {
      if (gone.has(node)) return true;
      const write = writes.get(node);
      if (write === undefined || node.op !== 'pagedAttention') return false;
      const inputs = Object.fromEntries(
        Object.entries({ ...node.inputs, ...write.inputs }).map(([name, value]) => [name, to.get(value)]),
      );
      const attrs = { ...node.attrs, ...write.attrs };
      to.set(node.outputs.y!, to.builder.op('ropeAttention', node.scope, inputs, attrs).y!);
      return true;
    });
  },
};
