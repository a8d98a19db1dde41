// A product whose two halves meet in one gated activation computes that as well, on targets whose products have such an epilogue.
import { type AnyNode, type Node, usersOf } from '../../define/graph/graph.ts';
import { rewrite } from '../../define/graph/rewrite.ts';
import type { Pass } from '../pass.ts';

export const fuseGatedMatmul: Pass = {
  name: 'fuse-gated-matmul',
  does: 'computes a gated activation inside the product before it',
  needs: 'gated-matmul',
  run(graph) {
    const users = usersOf(graph);
    const makers = new Map(graph.nodes.flatMap((node) => Object.values(node.outputs).map((value) => [value.id, node])));
    /** The product that a gated activation is computed in. */
    const products = new Map<AnyNode, Node<'matmul'>>();
    for (const node of graph.nodes) {
      if (node.op !== 'gated') continue;
      const [gate, up] = [makers.get(node.inputs.gate!.id), makers.get(node.inputs.up!.id)];
      if (gate?.op !== 'slice' || up?.op !== 'slice' || gate.inputs.x !== up.inputs.x) continue;
      const product = makers.get(gate.inputs.x!.id);
      if (product?.op !== 'matmul' || product.attrs.gated !== undefined) continue;
      const { size } = gate.attrs;
      // Kernels with the epilogue work in groups of eight columns.
      if (size % 8 !== 0) continue;
      const halves = gate.attrs.start === 0 && up.attrs.start === size && product.outputs.y!.shape[1] === 2 * size;
      const alone =
        users.get(product.outputs.y!.id)!.length === 2 &&
        [gate, up].every((half) => users.get(half.outputs.y!.id)!.length === 1);
      if (halves && alone) products.set(node, product);
    }
    return rewrite(graph, (node, to) => {
      const product = products.get(node);
      if (product === undefined || node.op !== 'gated') return false;
      const inputs = Object.fromEntries(Object.entries(product.inputs).map(([name, value]) => [name, to.get(value)]));
      to.set(node.outputs.y!, to.builder.op('matmul', product.scope, inputs, { gated: node.attrs.kind }).y!);
      return true;
    });
  },
};
