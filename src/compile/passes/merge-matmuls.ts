// Products of one input become one product over stacked weights: q, k and v; gate and up. Their results are slices of its result.
import { concat, slice, type WeightExpr } from '../../define/checkpoint/weights.ts';
import { type GraphWeight, type Node, usersOf } from '../../define/graph/graph.ts';
import { rewrite } from '../../define/graph/rewrite.ts';
import type { Pass } from '../pass.ts';

type Matmul = Node<'matmul'>;

/** Stacks rows; neighbouring slices of one tensor (a checkpoint that holds q, k, v merged) become one slice again. */
export function stackRows(parts: readonly WeightExpr[]): WeightExpr {
  const joined: WeightExpr[] = [];
  for (const part of parts) {
    const last = joined.at(-1);
    if (
      part.kind === 'slice' &&
      last?.kind === 'slice' &&
      part.axis === 0 &&
      last.axis === 0 &&
      last.end === part.start &&
      JSON.stringify(last.of) === JSON.stringify(part.of)
    ) {
      joined[joined.length - 1] = slice(last.of, 0, last.start, part.end);
    } else {
      joined.push(part);
    }
  }
  return joined.length === 1 ? joined[0]! : concat(0, joined);
}

/** 'layers.0.attention.q', 'layers.0.attention.k' → 'layers.0.attention.q+k'. */
function joinedName(names: readonly string[]): string {
  const parts = names.map((name) => name.split('.'));
  const first = parts[0]!;
  const differing = first.findIndex((_, i) => parts.some((other) => other[i] !== first[i]));
  return first.map((text, i) => (i === differing ? parts.map((other) => other[i]).join('+') : text)).join('.');
}

export const mergeMatmuls: Pass = {
  name: 'merge-matmuls',
  does: 'computes products of one input as one (qkv, gate+up)',
  run(graph) {
    const weights = new Map(graph.weights.map((weight) => [weight.value.id, weight]));
    const users = usersOf(graph);
    const groups = new Map<string, Matmul[]>();
    for (const node of graph.nodes) {
      if (node.op !== 'matmul') continue;
      const { x, weight, bias } = node.inputs;
      const stored = weights.get(weight!.id);
      // A weight with another use (tied to the embedding) stays as it is.
      if (stored === undefined || users.get(weight!.id)!.length > 1 || (bias !== undefined && !weights.has(bias.id)))
        continue;
      const key = JSON.stringify([x!.id, weight!.dtype, stored.split?.kind, bias?.dtype]);
      const group = groups.get(key);
      if (group === undefined) groups.set(key, [node]);
      else group.push(node);
    }
    const merged = new Map<Matmul, Matmul[]>();
    for (const group of groups.values()) if (group.length > 1) for (const node of group) merged.set(node, group);

    return rewrite(graph, (node, to) => {
      const group = node.op === 'matmul' ? merged.get(node) : undefined;
      if (group === undefined) return false;
      if (group[0] !== node) return true;
      const scope = joinedName(group.map((member) => member.scope));
      const join = (input: 'weight' | 'bias') => {
        const parts = group.map((member): GraphWeight => weights.get(member.inputs[input]!.id)!);
        const rows = parts.reduce((sum, { value }) => sum + (value.shape[0] as number), 0);
        const { value, split } = parts[0]!;
        return to.builder.weight(
          `${scope}.${input}`,
          value.dtype,
          [rows, ...value.shape.slice(1)],
          stackRows(parts.map(({ from }) => from)),
          split,
        );
      };
      const bias = node.inputs.bias === undefined ? undefined : join('bias');
      const { y } = to.builder.op('matmul', scope, { x: to.get(node.inputs.x!), weight: join('weight'), bias }, {});
      let start = 0;
      for (const member of group) {
        const size = member.outputs.y!.shape[1] as number;
        to.set(member.outputs.y!, to.builder.op('slice', member.scope, { x: y }, { start, size }).y!);
        start += size;
      }
      return true;
    });
  },
};
