// Modules own parameters and children; names come from the properties that hold them.

import type { DType } from '../../base/dtype.ts';
import { GraphError } from '../../base/errors.ts';
import type { WeightExpr } from '../checkpoint/weights.ts';
import type { WeightSplit } from '../graph/graph.ts';

/** What a parameter is filled with: a recipe from the checkpoint and the dtype it is stored in. */
export interface BoundWeight {
  readonly from: WeightExpr;
  readonly dtype: DType;
}

/** Options of `Parameter`. */
export interface ParameterOptions {
  readonly split?: WeightSplit;
  /** Weights of products may be kept in a quantised format; norms, biases and tables computed at build are not. Default: true for rank 2 and more. */
  readonly quantizable?: boolean;
  /** Numbers known from the config (rotary frequencies …): the parameter needs no checkpoint tensor. */
  readonly computed?: WeightExpr;
}

/** A weight of a model: its shape, and how it splits and quantises. */
export class Parameter {
  readonly shape: readonly number[];
  readonly split: WeightSplit | undefined;
  readonly quantizable: boolean;
  readonly computed: WeightExpr | undefined;
  #name = '';
  #bound: BoundWeight | undefined;

  constructor(shape: readonly number[], options: ParameterOptions = {}) {
    this.shape = shape;
    this.split = options.split;
    this.quantizable = options.quantizable ?? shape.length > 1;
    this.computed = options.computed;
  }

  /** Path from the model's root, set by `assignNames`. */
  get name(): string {
    return this.#name;
  }

  /** Called by `assignNames`. */
  setName(name: string): void {
    this.#name = name;
  }

  /** Says where the weight comes from; before tracing. */
  bind(weight: BoundWeight): void {
    this.#bound = weight;
  }

  /** Throws GraphError when `bind` was not called. */
  get bound(): BoundWeight {
    if (this.#bound === undefined)
      throw new GraphError('parameter has no weight', {
        where: this.#name,
        remedy: 'Bind the model to a checkpoint before tracing it',
      });
    return this.#bound;
  }
}

/** A part of a model. Subclasses hold parameters, modules and arrays of modules in properties, and define `forward`. */
export abstract class Module {
  #name = '';

  /** Path from the model's root, set by `assignNames`. */
  get name(): string {
    return this.#name;
  }

  /** Called by `assignNames`. */
  setName(name: string): void {
    this.#name = name;
  }
}

/** Property names are camelCase, weight names snake_case as in TensorRT-LLM's checkpoints. */
export function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function children(module: Module): [name: string, child: Module | Parameter][] {
  return Object.entries(module).flatMap(([key, value]): [string, Module | Parameter][] => {
    const name = snakeCase(key);
    if (value instanceof Module || value instanceof Parameter) return [[name, value]];
    if (Array.isArray(value))
      return value.flatMap((item, i): [string, Module][] => (item instanceof Module ? [[`${name}.${i}`, item]] : []));
    return [];
  });
}

/** Names every module and parameter below `root` by its path. */
export function assignNames(root: Module, prefix = ''): void {
  for (const [key, child] of children(root)) {
    const name = prefix === '' ? key : `${prefix}.${key}`;
    child.setName(name);
    if (child instanceof Module) assignNames(child, name);
  }
}

/** All parameters below `root`, each once, in definition order; `assignNames` must have run. */
export function parametersOf(root: Module): Parameter[] {
  const seen = new Set<Parameter>();
  const walk = (module: Module): void => {
    for (const [, child] of children(module)) {
      if (child instanceof Parameter) seen.add(child);
      else walk(child);
    }
  };
  walk(root);
  return [...seen];
}
