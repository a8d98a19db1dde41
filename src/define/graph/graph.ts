// The graph: immutable values in single-assignment form, nodes in execution order. Made by GraphBuilder only; passes make new ones.
import type { DType } from '../../base/dtype.ts';
import { GraphError } from '../../base/errors.ts';
import type { Shape } from '../../base/expr.ts';
import type { WeightExpr } from '../checkpoint/weights.ts';
import type { CacheSpec } from './attention.ts';
import { inferOp, inputNames, type Op, type OpAttrs } from './ops.ts';

/** A tensor of the step, a weight or a step input. */
export interface Value {
  readonly id: number;
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
}

/** How a weight splits over ranks: along `axis`, in units that must stay whole. */
export interface WeightSplit {
  readonly kind: 'column' | 'row' | 'vocab' | 'expert';
  readonly axis: number;
}

/** A weight: a value with its recipe from the checkpoint. */
export interface GraphWeight {
  readonly value: Value;
  readonly from: WeightExpr;
  readonly split?: WeightSplit;
}

/** One application of an op. */
export interface Node<K extends Op = Op> {
  readonly op: K;
  /** The module path that made it, for people. */
  readonly scope: string;
  readonly inputs: Readonly<Record<string, Value>>;
  readonly attrs: OpAttrs[K];
  readonly outputs: Readonly<Record<string, Value>>;
}

/** A node of any op, discriminated by `op`. */
export type AnyNode = { [K in Op]: Node<K> }[Op];

/** A step of a model: what comes in, what is computed, in which order, and what goes out. */
export interface Graph {
  readonly name: string;
  readonly inputs: readonly Value[];
  readonly weights: readonly GraphWeight[];
  readonly nodes: readonly AnyNode[];
  /** Results by name: logits, token, logprob. */
  readonly outputs: Readonly<Record<string, Value>>;
  readonly caches: readonly CacheSpec[];
}

/** Inputs given to an op: absent ones may be undefined. */
export type NodeInputs = Readonly<Record<string, Value | undefined>>;

/** Collects a graph. Every op is checked by its shape rule as it is added. */
export class GraphBuilder {
  readonly name: string;
  #next = 0;
  readonly #inputs: Value[] = [];
  readonly #weights = new Map<string, GraphWeight>();
  readonly #nodes: AnyNode[] = [];
  readonly #caches = new Map<number, CacheSpec>();

  constructor(name: string) {
    this.name = name;
  }

  #value(name: string, dtype: DType, shape: Shape): Value {
    return Object.freeze({ id: this.#next++, name, dtype, shape });
  }

  /** Adds a step input. */
  input(name: string, dtype: DType, shape: Shape): Value {
    const value = this.#value(name, dtype, shape);
    this.#inputs.push(value);
    return value;
  }

  /** Adds a weight, or gives back the one of the same name. */
  weight(name: string, dtype: DType, shape: Shape, from: WeightExpr, split?: WeightSplit): Value {
    const known = this.#weights.get(name);
    if (known !== undefined) return known.value;
    const value = this.#value(name, dtype, shape);
    this.#weights.set(name, { value, from, ...(split === undefined ? {} : { split }) });
    return value;
  }

  /** Adds a node; its outputs by name. Throws GraphError when the op's shape rule is broken. */
  op<K extends Op>(op: K, scope: string, inputs: NodeInputs, attrs: OpAttrs[K]): Readonly<Record<string, Value>> {
    const present: Record<string, Value> = {};
    for (const [name, value] of Object.entries(inputs)) if (value !== undefined) present[name] = value;
    const types = inferOp(op, present, attrs, scope);
    const outputs: Record<string, Value> = {};
    const many = Object.keys(types).length > 1;
    for (const [name, type] of Object.entries(types)) {
      outputs[name] = this.#value(many ? `${scope}.${name}` : scope, type.dtype, type.shape);
    }
    this.#nodes.push(Object.freeze({ op, scope, inputs: present, attrs, outputs }) as AnyNode);
    return outputs;
  }

  /** Declares a layer's KV cache. Throws GraphError when the layer has one. */
  cache(spec: CacheSpec): void {
    if (this.#caches.has(spec.layer))
      throw new GraphError('two attentions share a cache layer', { where: this.name, got: `layer ${spec.layer}` });
    this.#caches.set(spec.layer, spec);
  }

  /** The finished graph: nodes and weights that no output or cache needs are left out. */
  finish(outputs: Readonly<Record<string, Value>>): Graph {
    const live = new Set(Object.values(outputs).map((value) => value.id));
    const nodes: AnyNode[] = [];
    for (const node of this.#nodes.toReversed()) {
      if (!Object.values(node.outputs).some((value) => live.has(value.id))) continue;
      nodes.push(node);
      for (const value of Object.values(node.inputs)) live.add(value.id);
    }
    return Object.freeze({
      name: this.name,
      inputs: this.#inputs,
      weights: [...this.#weights.values()].filter(({ value }) => live.has(value.id)),
      nodes: nodes.reverse(),
      outputs,
      caches: [...this.#caches.values()].sort((a, b) => a.layer - b.layer),
    });
  }
}

/** Values of a node's inputs in the op's declared order. */
export function orderedInputs(node: AnyNode): [name: string, value: Value][] {
  return inputNames(node.op).flatMap(({ name }) => {
    const value = node.inputs[name];
    return value === undefined ? [] : [[name, value] as [string, Value]];
  });
}

/** Which nodes read each value, by value id. */
export function usersOf(graph: Graph): Map<number, AnyNode[]> {
  const users = new Map<number, AnyNode[]>();
  for (const node of graph.nodes) {
    for (const value of Object.values(node.inputs)) {
      const list = users.get(value.id);
      if (list === undefined) users.set(value.id, [node]);
      else list.push(node);
    }
  }
  return users;
}
