import { describe, expect, test } from 'vitest';
import { GraphError } from '../../base/errors.ts';
import { source } from '../checkpoint/weights.ts';
import { type Graph, GraphBuilder } from './graph.ts';
import { printDot, printGraph, printMermaid } from './print.ts';
import { rewrite } from './rewrite.ts';
import { verify } from './verify.ts';

function small(): Graph {
  const builder = new GraphBuilder('small');
  const ids = builder.input('ids', 'int32', ['T']);
  const table = builder.weight('table', 'bfloat16', [10, 4], source('table'));
  const { y } = builder.op('embedding', 'embed', { ids, table }, { dtype: 'float32' });
  builder.op('scale', 'unused', { x: y }, { factor: 2 });
  const { y: logits } = builder.op('matmul', 'head', { x: y, weight: table }, {});
  return builder.finish({ logits: logits! });
}

describe('graph', () => {
  test('prints, without what nothing needs', () => {
    expect(printGraph(small())).toMatchInlineSnapshot(`
      "graph small {
        input %0: int32[T] ids
        weight @table: bfloat16[10, 4]
        %2: float32[T, 4] = embedding(ids=%0, table=@table) {dtype: "float32"}  # embed
        %4: float32[T, 10] = matmul(x=%2, weight=@table)  # head
        output logits = %4
      }
      "
    `);
  });

  test('draws as Mermaid and DOT', () => {
    expect(printMermaid(small())).toContain('n0 -- "float32[T, 4]" --> n1');
    expect(printDot(small())).toContain('n0 -> n1 [label="float32[T, 4]"];');
  });

  test('rewrites into an equal graph when nothing is visited', () => {
    const graph = small();
    expect(printGraph(rewrite(graph, () => false)).replace(/%\d+/g, '%')).toBe(printGraph(graph).replace(/%\d+/g, '%'));
  });

  test('refuses what breaks a shape rule, naming the node', () => {
    const builder = new GraphBuilder('wrong');
    const x = builder.input('x', 'float32', ['T', 8]);
    const weight = builder.weight('w', 'float32', [4, 6], source('w'));
    expect(() => builder.op('matmul', 'layer.0', { x, weight }, {})).toThrow(
      /layer\.0 \(matmul\): shape rule broken; expected columns of weight = 8; got 6/,
    );
    expect(() => builder.op('matmul', 'layer.0', { x }, {})).toThrow(GraphError);
    expect(() => builder.op('matmul', 'layer.0', { x, weight, typo: x }, {})).toThrow(/typo/);
  });
});

describe('verifier', () => {
  test('passes a good graph', () => {
    expect(verify(small(), 'test').nodes).toHaveLength(2);
  });

  test('finds a value used before it is made, a wrong type, and a cache read before its write', () => {
    const graph = small();
    expect(() => verify({ ...graph, nodes: graph.nodes.toReversed() }, 'shuffle')).toThrow(
      /small after shuffle: head: value used before it is defined/,
    );
    const [embed, head] = graph.nodes;
    const y = { ...head!.outputs.y!, shape: ['T', 11] as const };
    expect(() =>
      verify({ ...graph, nodes: [embed!, { ...head!, outputs: { y } } as never], outputs: { logits: y } }, 'bend'),
    ).toThrow(/does not follow the shape rule; expected float32\[T, 10\]/);
    const builder = new GraphBuilder('cache');
    const q = builder.input('q', 'float32', ['T', 8]);
    const ints = (name: string, ...shape: ('T' | 'R' | number)[]) => builder.input(name, 'int32', shape);
    builder.cache({ layer: 0, numKvHeads: 1, headDim: 8, valueDim: 8 });
    const { y: out } = builder.op(
      'pagedAttention',
      'attend',
      {
        q,
        positions: ints('positions', 'T'),
        requestOffsets: ints('requestOffsets', 'R'),
        contextLengths: ints('contextLengths', 'R'),
        blockTables: ints('blockTables', 'R', 4),
      },
      { layer: 0, numHeads: 1, numKvHeads: 1, headDim: 8, valueDim: 8, scale: 1 },
    );
    expect(() => verify(builder.finish({ out: out! }), 'trace')).toThrow(/cache read before it is written/);
  });
});
