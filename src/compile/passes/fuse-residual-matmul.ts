// A sum of a product and something made before it becomes the product's residual, on targets whose products add one.
import { type AnyNode, type Node, usersOf, type Value } from '../../define/graph/graph.ts';
import { rewrite } from '../../define/graph/rewrite.ts';
import type { Pass } from '../pass.ts';

export const fuseResidualMatmul: Pass = {
  name: 'fuse-residual-matmul',
  does: 'adds the residual inside the product before',
  needs: 'residual-matmul',
  run(graph) {
    const users = usersOf(graph);
    const outputs = new Set(Object.values(graph.outputs));
    const makers = new Map(graph.nodes.flatMap((node) => Object.values(node.outputs).map((value) => [value.id, node])));
    /** The product that an `add` becomes part of, and what it adds. */
    const sums = new Map<AnyNode, { readonly product: Node<'matmul'>; readonly residual: Value }>();
    const gone = new Set<AnyNode>();
    for (const node of graph.nodes) {
      if (node.op !== 'add') continue;
      for (const [product, residual] of [
        [node.inputs.b!, node.inputs.a!],
        [node.inputs.a!, node.inputs.b!],
      ] as const) {
        const maker = makers.get(product.id);
        const alone = users.get(product.id)!.length === 1 && !outputs.has(product);
        if (maker?.op !== 'matmul' || maker.inputs.residual !== undefined || !alone) continue;
        sums.set(node, { product: maker, residual });
        gone.add(maker);
        break;
      }
    }
    return rewrite(graph, (node, to) => {
      if (gone.has(node)) return true;
      const sum = sums.get(node);
      if (sum === undefined) return false;
      const { product, residual } = sum;
      const inputs = Object.fromEntries(Object.entries(product.inputs).map(([name, value]) => [name, to.get(value)]));
      const made = to.builder.op('matmul', product.scope, { ...inputs, residual: to.get(residual) }, product.attrs);
      to.set(node.outputs.y!, made.y!);
      return true;
    });
  },
};
