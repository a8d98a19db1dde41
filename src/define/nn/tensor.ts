// A tensor while a model is traced: a graph value together with the builder that records what is done with it.
import type { FloatDType } from '../../base/dtype.ts';
import type { Shape } from '../../base/expr.ts';
import type { CacheSpec } from '../graph/attention.ts';
import type { GraphBuilder, Value } from '../graph/graph.ts';
import type { Parameter } from './module.ts';

/** What one tracing run shares. */
export interface Trace {
  readonly builder: GraphBuilder;
  /** Dtype of activations. */
  readonly dtype: FloatDType;
}

/** A value of the graph being traced; functional ops and layers take and give it. */
export class Tensor {
  readonly trace: Trace;
  readonly value: Value;

  constructor(trace: Trace, value: Value) {
    this.trace = trace;
    this.value = value;
  }

  get shape(): Shape {
    return this.value.shape;
  }

  /** Columns, when known at build (they always are for activations). */
  get width(): number {
    return this.shape.at(-1) as number;
  }

  /** Declares the KV cache of a layer that reads this tensor. */
  addCache(spec: CacheSpec): void {
    this.trace.builder.cache(spec);
  }
}

/** A weight or a tensor as an input of an op recorded by `trace`. */
export function operand(trace: Trace, input: Tensor | Parameter | undefined): Value | undefined {
  if (input === undefined) return undefined;
  if (input instanceof Tensor) return input.value;
  const { from, dtype } = input.bound;
  return trace.builder.weight(input.name, dtype, input.shape, from, input.split);
}
