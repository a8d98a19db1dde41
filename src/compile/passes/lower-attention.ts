// attention becomes its two kernels: norm + rotation + cache write, and attention over the cache.
import { rewrite } from '../../define/graph/rewrite.ts';
import type { Pass } from '../pass.ts';

export const lowerAttention: Pass = {
  name: 'lower-attention',
  does: 'splits attention into the cache write and the read',
  run: (graph) =>
    rewrite(graph, (node, to) => {
      if (node.op !== 'attention') return false;
      const input = (name: string) => (node.inputs[name] === undefined ? undefined : to.get(node.inputs[name]));
      const pick = (...names: string[]) => Object.fromEntries(names.map((name) => [name, input(name)]));
      const { norm, rope, scale, window, sinkTokens, chunk, softcap, ...heads } = node.attrs;
      const { y: q } = to.builder.op(
        'ropeCache',
        `${node.scope}.rope_cache`,
        pick('q', 'k', 'v', 'qNorm', 'kNorm', 'frequencies', 'positions', 'cacheSlots'),
        {
          ...heads,
          ...(norm === undefined ? {} : { norm }),
          ...(rope === undefined ? {} : { rope }),
        },
      );
      const { y } = to.builder.op(
        'pagedAttention',
        node.scope,
        { q, ...pick('sinks', 'slopes', 'positions', 'requestOffsets', 'contextLengths', 'blockTables') },
        {
          ...heads,
          scale,
          ...(window === undefined ? {} : { window }),
          ...(sinkTokens === undefined ? {} : { sinkTokens }),
          ...(chunk === undefined ? {} : { chunk }),
          ...(softcap === undefined ? {} : { softcap }),
        },
      );
      to.set(node.outputs.y!, y!);
      return true;
    }),
};
