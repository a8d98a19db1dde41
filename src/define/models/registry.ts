// Which architectures are known, and what a definition of one is. A user's own model is registered the same way as ours.
import type { FloatDType } from '../../base/dtype.ts';
import { ConfigError, nearest } from '../../base/errors.ts';
import type { CausalLM } from '../nn/step.ts';
import type { Fields } from './fields.ts';
import type { WeightMap } from './weight-map.ts';

/** What the compiler and runtime need to know of any model. Plain data: it is written into checkpoints and engines. */
export interface ModelConfig {
  /** Hugging Face `architectures[0]`. */
  readonly architecture: string;
  /** Dtype of the checkpoint: what `dtype: 'auto'` means. */
  readonly dtype: FloatDType;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly numHiddenLayers: number;
  readonly maxPositionEmbeddings: number;
}

/** What a model may know of the engine it is built for. */
export interface BuildContext {
  /** Longest sequence the engine will serve. */
  readonly maxSeqLen: number;
}

/** An architecture: how to read its config, make its module and find its weights. */
export interface ModelDefinition<Config extends ModelConfig = ModelConfig> {
  /** Values of `architectures[0]` it answers to; the first is its name in TypeRT checkpoints. */
  readonly architectures: readonly string[];
  /** Reads Hugging Face's config.json. */
  readonly parseConfig: (fields: Fields) => Config;
  /** Makes the module, its parameters not bound yet. */
  readonly build: (config: Config, context: BuildContext) => CausalLM;
  /** Parameter names → tensors of the Hugging Face checkpoint. */
  readonly weights: (config: Config) => WeightMap;
}

const registry = new Map<string, ModelDefinition>();

/** Adds an architecture, or replaces the one of the same name. */
export function registerModel<Config extends ModelConfig>(definition: ModelDefinition<Config>): void {
  for (const architecture of definition.architectures)
    registry.set(architecture, definition as unknown as ModelDefinition);
}

export function architectures(): string[] {
  return [...registry.keys()].sort();
}

/** The definition of an architecture; an unknown one throws ConfigError that names near ones. */
export function findModel(architecture: string, where: string): ModelDefinition {
  const definition = registry.get(architecture);
  if (definition === undefined) {
    throw new ConfigError('unknown architecture', {
      where,
      expected: `one of TypeRT's ${registry.size} architectures, such as ${nearest(architecture, registry.keys()).join(', ')}`,
      got: architecture,
      remedy: 'Define it with the API of typert/nn and registerModel (docs/adding-a-model.md)',
    });
  }
  return definition;
}
