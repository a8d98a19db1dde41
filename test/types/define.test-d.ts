// What the types of `typert/nn` and `typert/graph` promise. Checked by `npm run types`; never run.
import {
  type AnyNode,
  type Graph,
  GraphBuilder,
  type Node,
  type Op,
  type OpAttrs,
  type ops,
  type Rewriter,
  rewrite,
} from 'typert/graph';
import {
  type CausalLM,
  ColumnLinear,
  type DecoderForCausalLM,
  functional,
  type ModelConfig,
  type ModelDefinition,
  Module,
  Parameter,
  registerModel,
  type StepInputs,
  source,
  type Tensor,
  type WeightExpr,
} from 'typert/nn';
import { expectTypeOf } from 'vitest';

interface TinyConfig extends ModelConfig {
  readonly numStones: number;
}

class Tiny extends Module implements CausalLM {
  readonly head: ColumnLinear;

  constructor(config: TinyConfig) {
    super();
    this.head = new ColumnLinear(config.hiddenSize, config.vocabSize, { bias: true });
  }

  forward(step: StepInputs): Tensor {
    expectTypeOf(step.tokens).toEqualTypeOf<Tensor>();
    return this.head.forward(step.tokens);
  }
}

const base = {
  architecture: 'Tiny',
  dtype: 'float32',
  vocabSize: 8,
  hiddenSize: 4,
  numHiddenLayers: 1,
  maxPositionEmbeddings: 16,
} as const;

// The config's type goes from `parseConfig` to `build` and `weights`.
registerModel<TinyConfig>({
  architectures: ['Tiny'],
  parseConfig: (fields) => ({ ...base, numStones: fields.size('num_stones', 3) }),
  build: (config, { maxSeqLen }) => {
    expectTypeOf(config.numStones).toEqualTypeOf<number>();
    expectTypeOf(maxSeqLen).toEqualTypeOf<number>();
    return new Tiny(config);
  },
  weights: (config) => {
    expectTypeOf(config).toEqualTypeOf<TinyConfig>();
    return { 'head.weight': 'head.weight', 'head.{p}': ({ p }) => source(`head.${p}`) };
  },
});
const tiny: TinyConfig = { ...base, numStones: 1 };
const definition: ModelDefinition<TinyConfig> = {
  architectures: ['Tiny'],
  parseConfig: () => tiny,
  build: (config) => new Tiny(config),
  weights: () => ({}),
};
// @ts-expect-error: the config lacks numStones
registerModel<TinyConfig>({ ...definition, parseConfig: () => base });
// @ts-expect-error: a dtype of activations is a float
registerModel<TinyConfig>({ ...definition, parseConfig: () => ({ ...tiny, dtype: 'int8' }) });
// @ts-expect-error: a linear layer is no language model
registerModel<TinyConfig>({ ...definition, build: () => new ColumnLinear(4, 4) });
// @ts-expect-error: a rule is a name or a function that makes a recipe
registerModel<TinyConfig>({ ...definition, weights: () => ({ 'head.weight': 4 }) });
expectTypeOf<DecoderForCausalLM>().toExtend<CausalLM>();

// Functional ops take tensors and parameters, of the right kind.
declare const x: Tensor;
const weight = new Parameter([4, 4], { split: { kind: 'row', axis: 1 } });
expectTypeOf(functional.matmul(x, weight, undefined, 'product')).toEqualTypeOf<Tensor>();
expectTypeOf(functional.activation(x, 'silu', 'act')).toEqualTypeOf<Tensor>();
// @ts-expect-error: not an activation
functional.activation(x, 'swiglu', 'act');
// @ts-expect-error: activations come first, weights second
functional.matmul(weight, x, undefined, 'product');
// @ts-expect-error: not a way to split
new Parameter([4], { split: { kind: 'diagonal', axis: 0 } });
expectTypeOf(source('a')).toEqualTypeOf<WeightExpr>();

// Every op has its own attributes.
expectTypeOf<keyof typeof ops>().toEqualTypeOf<Op>();
expectTypeOf<OpAttrs['rmsnorm']>().toEqualTypeOf<{ readonly eps: number; readonly weightOffset: number }>();
const builder = new GraphBuilder('small');
const value = builder.input('x', 'float32', ['T', 4]);
builder.op('rmsnorm', 'norm', { x: value }, { eps: 1e-5, weightOffset: 0 });
// @ts-expect-error: an attribute is missing
builder.op('rmsnorm', 'norm', { x: value }, { eps: 1e-5 });
// @ts-expect-error: not an attribute of this op
builder.op('scale', 'factor', { x: value }, { cap: 30 });
// @ts-expect-error: no such op
builder.op('conv', 'conv', { x: value }, {});

// Nodes are told apart by their op, and graphs cannot be changed.
declare const node: AnyNode;
if (node.op === 'pagedAttention') expectTypeOf(node.attrs.softcap).toEqualTypeOf<number | undefined>();
if (node.op === 'moeRoute') expectTypeOf(node).toEqualTypeOf<Node<'moeRoute'>>();
declare const graph: Graph;
expectTypeOf(rewrite).toBeCallableWith(graph, (_node: AnyNode, _to: Rewriter) => false);
// @ts-expect-error: read only
graph.nodes = [];
// @ts-expect-error: read only
node.attrs = {};
