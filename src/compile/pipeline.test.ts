import { beforeAll, describe, expect, test } from 'vitest';
import { goldenPath } from '../../test/support/golden.ts';
import { openCheckpoint } from '../define/checkpoint/open.ts';
import { values } from '../define/checkpoint/weights.ts';
import { GraphBuilder } from '../define/graph/graph.ts';
import { printGraph } from '../define/graph/print.ts';
import { verify } from '../define/graph/verify.ts';
import { referenceTarget } from '../targets/reference/target.ts';
import { type Compiled, compile } from './build.ts';
import { fuseGated } from './passes/fuse-gated.ts';
import { fuseNormMatmul } from './passes/fuse-norm-matmul.ts';
import { fuseResidualMatmul } from './passes/fuse-residual-matmul.ts';
import { mergeMatmuls, stackRows } from './passes/merge-matmuls.ts';
import { pipeline } from './pipeline.ts';

/** What the line of the text says of the ops, in order. */
const opsOf = (text: string) => [...text.matchAll(/ = (\w+)\(/g)].map((match) => match[1]);

async function compiled(name: string): Promise<Compiled> {
  using checkpoint = await openCheckpoint(goldenPath(name));
  return compile(checkpoint, referenceTarget, { dtype: 'float32', maxSeqLen: 64, tokensPerBlock: 8, maxBatchSize: 4 });
}

describe('stages of llama', () => {
  let llama: Compiled;
  beforeAll(async () => {
    llama = await compiled('llama');
  });

  test.each(['trace', ...pipeline.filter(({ needs }) => needs === undefined).map(({ name }) => name)])(
    '%s',
    async (stage) => {
      await expect(printGraph(llama.stages.get(stage)!)).toMatchFileSnapshot(`__snapshots__/llama.${stage}.txt`);
    },
  );

  test('the plan has one launch an op and gives no memory to views', () => {
    const { plan, graph } = llama;
    expect(plan.phases.forward.map((step) => step.op)).toEqual(
      graph.nodes.filter((node) => node.op !== 'slice' && node.op !== 'sample').map((node) => node.op),
    );
    expect(plan.phases.sample.map((step) => step.op)).toEqual(['sample']);
    const rope = plan.phases.forward.find((step) => step.op === 'ropeCache')!;
    const [q, k, v] = ['q', 'k', 'v'].map((name) => plan.tensors[rope.args[name]!]!);
    expect([q, k, v].map((tensor) => tensor!.stride)).toEqual([128, 128, 128]);
    const offset = (tensor: typeof q) => (tensor!.storage as { offset: number }).offset;
    expect(offset(k) - offset(q)).toBe(64 * 4);
    expect(offset(v) - offset(k)).toBe(32 * 4);
  });

  test('values that live together never share memory', () => {
    const { slots } = llama.arena;
    for (const a of slots) {
      for (const b of slots) {
        if (a === b || a.from > b.to || b.from > a.to) continue;
        expect(a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset).toBe(true);
      }
    }
    const total = slots.reduce((sum, slot) => sum + slot.bytes, 0);
    expect(llama.arena.bytes).toBeLessThan(total / 2);
  });
});

test('a checkpoint that holds q, k, v merged is not taken apart', async () => {
  const { graph } = await compiled('phi3');
  const qkv = graph.weights.find(({ value }) => value.name === 'transformer.layers.0.attention.q+k+v.weight')!;
  expect(qkv.from).toEqual({
    kind: 'slice',
    axis: 0,
    start: 0,
    end: 128,
    of: { kind: 'source', name: 'model.layers.0.self_attn.qkv_proj.weight' },
  });
});

test('tied embeddings and rotary frequencies are kept once', async () => {
  const { graph } = await compiled('qwen2');
  const names = graph.weights.map(({ value }) => value.name);
  expect(names).not.toContain('lm_head.weight');
  expect(names.filter((name) => name.endsWith('rotary_frequencies'))).toHaveLength(1);
});

test('norms after both parts leave nothing to fuse but the last', async () => {
  const { stages } = await compiled('olmo2');
  expect(opsOf(printGraph(stages.get('fuse-residual-norm')!)).filter((op) => op === 'add')).toHaveLength(4);
});

describe('passes on small graphs', () => {
  const float = (builder: GraphBuilder, name: string, columns: number) =>
    builder.input(name, 'float32', ['T', columns]);
  const weight = (builder: GraphBuilder, name: string, rows: number, dtype: 'float32' | 'bfloat16' = 'float32') =>
    builder.weight(name, dtype, [rows, 4], values(new Array(rows * 4).fill(rows), [rows, 4]));

  test('products of different storage are not merged', () => {
    const builder = new GraphBuilder('mixed');
    const x = float(builder, 'x', 4);
    const a = builder.op('matmul', 'a', { x, weight: weight(builder, 'a.weight', 8) }, {}).y!;
    const b = builder.op('matmul', 'b', { x, weight: weight(builder, 'b.weight', 8, 'bfloat16') }, {}).y!;
    const graph = builder.finish({ a, b });
    expect(opsOf(printGraph(mergeMatmuls.run(graph)))).toEqual(['matmul', 'matmul']);
  });

  test('a gated activation joins the product before it, for targets that have the epilogue', async () => {
    using checkpoint = await openCheckpoint(goldenPath('llama'));
    const target = { ...referenceTarget, epilogues: ['gated-matmul'] as const };
    const { graph, stages } = compile(checkpoint, target, { dtype: 'float32', maxSeqLen: 64 });
    const gated = graph.nodes.filter((node) => node.op === 'matmul' && node.attrs.gated === 'silu');
    expect(gated.map(({ outputs }) => outputs.y!.shape)).toEqual([
      ['T', 128],
      ['T', 128],
    ]);
    expect(opsOf(printGraph(stages.get('fuse-gated-matmul')!))).not.toContain('gated');
  });

  test('a layer is five launches on targets that fuse them', async () => {
    using checkpoint = await openCheckpoint(goldenPath('llama'));
    const epilogues = ['gated-matmul', 'residual-matmul', 'norm-matmul', 'rope-attention'] as const;
    const { graph } = compile(checkpoint, { ...referenceTarget, epilogues }, { dtype: 'float32', maxSeqLen: 64 });
    const kernels = graph.nodes.filter(({ op }) => op !== 'slice');
    expect(kernels.map(({ op }) => op)).toEqual([
      'embedding',
      ...Array.from({ length: 2 }, () => ['matmul', 'ropeAttention', 'matmul', 'matmul', 'matmul']).flat(),
      'gatherRows',
      'matmul',
      'sample',
    ]);
    const normed = graph.nodes.filter((node) => node.op === 'matmul' && node.attrs.norm !== undefined);
    expect(normed).toHaveLength(5);
    expect(graph.nodes.filter(({ inputs }) => inputs.residual !== undefined)).toHaveLength(4);
  });

  test('a norm that two products read, and a product that something else reads, stay apart', () => {
    const builder = new GraphBuilder('shared');
    const x = float(builder, 'x', 4);
    const { y: normed } = builder.op('rmsnorm', 'n', { x }, { eps: 1e-5, weightOffset: 0 });
    const a = builder.op('matmul', 'a', { x: normed, weight: weight(builder, 'a.weight', 4) }, {}).y!;
    const b = builder.op('matmul', 'b', { x: normed, weight: weight(builder, 'b.weight', 4) }, {}).y!;
    const { y } = builder.op('add', 'sum', { a: x, b: a }, {});
    const graph = builder.finish({ y: y!, a, b });
    for (const pass of [fuseNormMatmul, fuseResidualMatmul])
      expect(opsOf(printGraph(verify(pass.run(graph), pass.name)))).toEqual(['rmsnorm', 'matmul', 'matmul', 'add']);
  });

  test('an activation of both factors stays', () => {
    const builder = new GraphBuilder('both');
    const [x, z] = [float(builder, 'x', 4), float(builder, 'z', 4)];
    const a = builder.op('activation', 'a', { x }, { kind: 'silu' }).y!;
    const b = builder.op('activation', 'b', { x: z }, { kind: 'relu' }).y!;
    const { y } = builder.op('mul', 'm', { a, b }, {});
    const graph = verify(fuseGated.run(builder.finish({ y: y! })), 'fuse-gated');
    expect(opsOf(printGraph(graph))).toEqual(['activation', 'activation', 'mul']);
  });

  test('an activation that something else reads is not swallowed', () => {
    const builder = new GraphBuilder('shared');
    const [x, z] = [float(builder, 'x', 4), float(builder, 'z', 4)];
    const a = builder.op('activation', 'a', { x }, { kind: 'silu' }).y!;
    const { y } = builder.op('mul', 'm', { a, b: z }, {});
    const graph = verify(fuseGated.run(builder.finish({ y: y!, a })), 'fuse-gated');
    expect(opsOf(printGraph(graph))).toEqual(['activation', 'mul']);
  });

  test('neighbouring slices of one tensor join, others do not', () => {
    const of = { kind: 'source', name: 't' } as const;
    const rows = (start: number, end: number) => ({ kind: 'slice', axis: 0, start, end, of }) as const;
    expect(stackRows([rows(0, 4), rows(4, 6)])).toEqual(rows(0, 6));
    expect(stackRows([rows(4, 6), rows(0, 4)])).toEqual({ kind: 'concat', axis: 0, parts: [rows(4, 6), rows(0, 4)] });
  });
});
