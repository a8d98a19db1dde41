// Layers that see the same positions form a group with a block table of its own, so that those with a window can give blocks back while the others keep theirs. Groups are equally
// large, as far as the model allows: then a block of one is as good as a block of another, and all of them come from one pool.
import type { CacheSpec } from '../../define/graph/attention.ts';
import type { Value } from '../../define/graph/graph.ts';
import { rewrite } from '../../define/graph/rewrite.ts';
import type { Pass } from '../pass.ts';

/** Groups at most: each costs a table a step. */
const maxGroups = 8;

function kindOf({ window, sinkTokens }: CacheSpec): string {
  return `${window} ${sinkTokens}`;
}

/** Layers a group: the size that leaves least of the pool unused; of equals the greatest. */
function groupSize(counts: readonly number[]): number {
  const total = counts.reduce((a, b) => a + b, 0);
  let best = Math.max(...counts);
  let least = Number.POSITIVE_INFINITY;
  for (let size = best; size >= 1; size--) {
    const groups = counts.reduce((sum, count) => sum + Math.ceil(count / size), 0);
    if (groups > maxGroups) break;
    const unused = groups * size - total;
    if (unused < least) [best, least] = [size, unused];
  }
  return best;
}

/** The specs with their groups and pools. Layers of one group that are alike in shape are in pools of their own, in order; those of another group are in the same ones. */
export function groupCaches(caches: readonly CacheSpec[]): readonly CacheSpec[] {
  const kinds = new Map<string, CacheSpec[]>();
  for (const spec of caches) kinds.set(kindOf(spec), [...(kinds.get(kindOf(spec)) ?? []), spec]);
  if (kinds.size <= 1) return caches;
  const size = groupSize(Array.from(kinds.values(), (specs) => specs.length));
  // Those that see everything come first: the first group's blocks are those that a prefix is known by.
  const ordered = [...kinds.values()].sort(
    (a, b) => Number(b[0]!.window === undefined) - Number(a[0]!.window === undefined),
  );
  const groups = ordered.flatMap((specs) => {
    const count = Math.ceil(specs.length / size);
    return Array.from({ length: count }, (_, i) => specs.slice(i * size, (i + 1) * size));
  });
  const pools = new Map<string, number>();
  const grouped = groups.flatMap((specs, group) => {
    const seen = new Map<string, number>();
    return specs.map((spec): CacheSpec => {
      const shape = `${spec.numKvHeads} ${spec.headDim} ${spec.valueDim}`;
      const nth = seen.get(shape) ?? 0;
      seen.set(shape, nth + 1);
      const key = `${shape} ${nth}`;
      if (!pools.has(key)) pools.set(key, pools.size);
      return { ...spec, group, pool: pools.get(key)! };
    });
  });
  return grouped.sort((a, b) => a.layer - b.layer);
}

const perGroup: readonly string[] = ['cacheSlots', 'blockTables'];

export const groupCachesPass: Pass = {
  name: 'group-caches',
  does: 'gives layers with different windows block tables of their own',
  run: (graph) => {
    const caches = groupCaches(graph.caches);
    const groups = new Map(caches.map(({ layer, group = 0 }) => [layer, group]));
    const made = new Map<string, Value>();
    return rewrite(
      graph,
      (node, to) => {
        if (!('layer' in node.attrs)) return false;
        const group = groups.get(node.attrs.layer)!;
        if (group === 0) return false;
        const inputs = Object.fromEntries(
          Object.entries(node.inputs).map(([name, value]) => {
            if (!perGroup.includes(name)) return [name, to.get(value)];
            const own = `${name}.${group}`;
            const input = made.get(own) ?? to.builder.input(own, value.dtype, value.shape);
            made.set(own, input);
            return [name, input];
          }),
        );
        const outputs = to.builder.op(node.op, node.scope, inputs, node.attrs);
        for (const [name, value] of Object.entries(node.outputs)) to.set(value, outputs[name]!);
        return true;
      },
      caches,
    );
  },
};
