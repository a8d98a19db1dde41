// Weight-only quantisation: weights of products become groups of 8 or 4 bits. What is computed stays the same op; the engine's weight is quantised
// when it is written. And its companion, which keeps activations of quantised products floats.
import { isBlockDType, isFloatDType } from '../../base/dtype.ts';
import { CompileError } from '../../base/errors.ts';
import { type AnyNode, type Graph, GraphBuilder, usersOf, type Value } from '../../define/graph/graph.ts';
import { rewrite } from '../../define/graph/rewrite.ts';
import type { Pass } from '../pass.ts';
import type { WeightQuantization } from '../quantization.ts';

/** Inputs that are weights of products. */
const weightsOf = (node: AnyNode): readonly (Value | undefined)[] => {
  if (node.op === 'matmul') return [node.inputs.weight];
  return node.op === 'moeExperts' ? [node.inputs.gateUp, node.inputs.down] : [];
};

/** Quantises the weights of products that nothing else reads. */
export function quantizeWeights({ dtype, groupSize, excludes }: WeightQuantization): Pass {
  return {
    name: 'quantize-weights',
    does: `keeps weights of products in groups of ${groupSize} (${dtype})`,
    run(graph) {
      const users = usersOf(graph);
      const quantised = new Set<number>();
      for (const node of graph.nodes) {
        const routes = Object.values(node.outputs).some((value) =>
          (users.get(value.id) ?? []).some((user) => user.op === 'moeRoute'),
        );
        if (routes || excludes(node.scope)) continue;
        for (const weight of weightsOf(node)) {
          // A table of embeddings that is the head as well stays as it is.
          if (weight === undefined || users.get(weight.id)!.some((user) => !weightsOf(user).includes(weight))) continue;
          if (isFloatDType(weight.dtype)) quantised.add(check(weight, groupSize).id);
        }
      }
      if (quantised.size === 0 && graph.weights.some(({ value }) => isBlockDType(value.dtype)))
        throw new CompileError('the checkpoint is quantised already', {
          where: graph.name,
          expected: 'weights in float32, bfloat16 or float16',
          got: [...new Set(graph.weights.map(({ value }) => value.dtype))].join(', '),
          remedy: 'Leave the quantisation out: the weights keep their bits',
        });
      return withDTypes(graph, (value) => (quantised.has(value.id) ? dtype : value.dtype));
    },
  };
}

function check(weight: Value, groupSize: number): Value {
  const columns = weight.shape.at(-1) as number;
  if (columns % groupSize !== 0) {
    const fits = [128, 64, 32].filter((size) => columns % size === 0);
    throw new CompileError('a weight does not divide into groups', {
      where: weight.name,
      expected: `columns that are a multiple of ${groupSize}`,
      got: `[${weight.shape}]`,
      remedy:
        fits.length > 0
          ? `Use a group size of ${fits.join(' or ')}`
          : 'Name its module in excludeModules: it stays as it is',
    });
  }
  return weight;
}

/** The same graph with weights of other dtypes. */
function withDTypes(graph: Graph, dtypeOf: (value: Value) => Value['dtype']): Graph {
  const builder = new GraphBuilder(graph.name);
  const map = new Map<number, Value>();
  for (const input of graph.inputs) map.set(input.id, builder.input(input.name, input.dtype, input.shape));
  for (const { value, from, split } of graph.weights)
    map.set(value.id, builder.weight(value.name, dtypeOf(value), value.shape, from, split));
  for (const cache of graph.caches) builder.cache(cache);
  for (const node of graph.nodes) {
    const inputs = Object.fromEntries(Object.entries(node.inputs).map(([name, value]) => [name, map.get(value.id)]));
    const outputs = builder.op(node.op, node.scope, inputs, node.attrs);
    for (const [name, value] of Object.entries(node.outputs)) map.set(value.id, outputs[name]!);
  }
  return builder.finish(
    Object.fromEntries(Object.entries(graph.outputs).map(([name, value]) => [name, map.get(value.id)!])),
  );
}

/** Keeps activations floats wherever weights are quantised. */
export const floatActivations: Pass = {
  name: 'float-activations',
  does: 'multiplies quantised weights with activations as they are',
  run: (graph) =>
    rewrite(graph, (node, to) => {
      if (!weightsOf(node).some((weight) => weight !== undefined && isBlockDType(weight.dtype))) return false;
      if (node.op !== 'matmul' && node.op !== 'moeExperts') return false;
      const inputs = Object.fromEntries(Object.entries(node.inputs).map(([name, value]) => [name, to.get(value)]));
      const attrs = { ...node.attrs, exact: true as const };
      const outputs = to.builder.op(node.op, node.scope, inputs, attrs as never);
      to.set(node.outputs.y!, (outputs as { y: Value }).y);
      return true;
    }),
};
