// From the last graph to the plan: kernels chosen, memory laid out, launches listed.
import type { FloatDType } from '../base/dtype.ts';
import { CompileError } from '../base/errors.ts';
import type { Dims } from '../base/expr.ts';
import type { AnyNode, Graph, Value } from '../define/graph/graph.ts';
import { ops } from '../define/graph/ops.ts';
import type { CacheDType, Phase, Plan, PlanLimits, PlanStep, PlanTensor, Storage } from '../targets/plan.ts';
import type { Target } from '../targets/target.ts';
import { type Arena, layOut, viewBase } from './memory.ts';

export interface PlanOptions {
  readonly target: Target;
  readonly dtype: FloatDType;
  /** Dtype of the KV cache, where it is not that of activations. */
  readonly cacheDType?: CacheDType;
  readonly limits: PlanLimits;
  readonly tokensPerBlock: number;
  readonly maxBlocksPerSequence: number;
}

export function limitDims({ maxNumTokens, maxBatchSize, maxNumLogits }: PlanLimits): Dims {
  return { T: maxNumTokens, R: maxBatchSize, L: maxNumLogits };
}

/** The plan of a graph that has been through the pipeline, and its memory plan for reports. */
export function makePlan(graph: Graph, options: PlanOptions): { plan: Plan; arena: Arena } {
  const { target, dtype, cacheDType = dtype, limits, tokensPerBlock, maxBlocksPerSequence } = options;
  const makers = new Map(
    graph.nodes.flatMap((node) => Object.values(node.outputs).map((value) => [value.id, node] as const)),
  );
  const arena = layOut(graph.nodes, Object.values(graph.outputs), limitDims(limits), (value) =>
    target.storageBytes(value.dtype),
  );
  const offsets = new Map(arena.slots.map((slot) => [slot.value.id, slot.offset]));

  const tensors: PlanTensor[] = [];
  const indices = new Map<number, number>();
  const place = (value: Value, storage: Storage, stride?: number): void => {
    const { name, dtype: elements, shape } = value;
    indices.set(
      value.id,
      tensors.push({ name, dtype: elements, shape, ...(stride === undefined ? {} : { stride }), storage }) - 1,
    );
  };
  for (const input of graph.inputs) place(input, { kind: 'input' });
  for (const { value } of graph.weights) place(value, { kind: 'weight' });

  /** Columns before a view's first in the tensor it looks into. */
  const columnOf = (value: Value): number => {
    const maker = makers.get(value.id);
    return maker?.op === 'slice' ? maker.attrs.start + columnOf(maker.inputs.x!) : 0;
  };
  const placeOutput = (value: Value): void => {
    const base = viewBase(value, makers);
    const offset = offsets.get(base.id);
    if (offset === undefined) throw new CompileError('value has no memory', { where: value.name });
    const start = columnOf(value) * target.storageBytes(value.dtype);
    place(value, { kind: 'arena', offset: offset + start }, base === value ? undefined : (base.shape.at(-1) as number));
  };

  const phases: { [P in Phase]: PlanStep[] } = { forward: [], sample: [] };
  for (const node of graph.nodes) {
    for (const value of Object.values(node.outputs)) placeOutput(value);
    if (ops[node.op].view) continue;
    phases[ops[node.op].phase ?? 'forward'].push(launch(node, indices, target));
  }
  const outputs = Object.fromEntries(
    Object.entries(graph.outputs).map(([name, value]) => [name, indices.get(value.id)!]),
  );
  const plan: Plan = {
    target: target.name,
    dtype,
    ...(cacheDType === dtype ? {} : { cacheDType }),
    limits,
    tokensPerBlock,
    maxBlocksPerSequence,
    tensors,
    phases,
    outputs,
    caches: graph.caches,
    arenaBytes: arena.bytes,
  };
  return { plan, arena };
}

function launch(node: AnyNode, indices: ReadonlyMap<number, number>, target: Target): PlanStep {
  const kernel = target.select(node);
  if (kernel === undefined)
    throw new CompileError(`target ${target.name} has no kernel for this op`, { where: node.scope, got: node.op });
  const args = Object.fromEntries(
    [...Object.entries(node.inputs), ...Object.entries(node.outputs)].map(([name, value]) => [
      name,
      indices.get(value.id)!,
    ]),
  );
  return { op: node.op, scope: node.scope, attrs: node.attrs, kernel, args };
}
