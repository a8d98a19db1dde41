// From a checkpoint to a model with its weights bound: config parsed, module built, every parameter's recipe found and checked.
import { type DType, type FloatDType, isBlockDType, isFloatDType } from '../../base/dtype.ts';
import { CheckpointError, ConfigError, show } from '../../base/errors.ts';
import type { Checkpoint, TensorSource } from '../checkpoint/tensors.ts';
import { describe, values, type WeightExpr, weightMeta } from '../checkpoint/weights.ts';
import { assignNames, type Parameter, parametersOf } from '../nn/module.ts';
import type { CausalLM } from '../nn/step.ts';
import { Fields } from './fields.ts';
import { findModel, type ModelConfig, type ModelDefinition } from './index.ts';
import { parseTypertConfig, typertWeights } from './typert-checkpoint.ts';
import { compileWeightMap } from './weight-map.ts';

/** An architecture and its parsed config. */
export interface KnownModel {
  readonly definition: ModelDefinition;
  readonly config: ModelConfig;
}

/** Finds a checkpoint's architecture and parses its config. Throws ConfigError naming what is missing or wrong. */
export function identify(checkpoint: Checkpoint): KnownModel {
  const where = `${checkpoint.path}${checkpoint.format === 'gguf' ? '' : '/config.json'}`;
  if (checkpoint.format === 'typert') {
    const config = parseTypertConfig(checkpoint.config, where);
    return { definition: findModel(config.architecture, where), config };
  }
  const { architectures } = checkpoint.config;
  const architecture: unknown = Array.isArray(architectures) ? architectures[0] : undefined;
  if (typeof architecture !== 'string') {
    throw new ConfigError('missing field', {
      where: `${where}: architectures`,
      expected: 'a list with the name of the architecture',
      got: show(architectures),
      remedy: 'Check that config.json is the one of a language model',
    });
  }
  const definition = findModel(architecture, where);
  return { definition, config: definition.parseConfig(new Fields(checkpoint.config, where)) };
}

/** In which dtype a parameter is kept, given how the checkpoint stores it. */
export type StorePolicy = (parameter: Parameter, stored: DType) => DType;

/** Builds the module and binds every parameter to its recipe. */
export function bindModel(
  { definition, config }: KnownModel,
  checkpoint: Checkpoint,
  maxSeqLen: number,
  store: StorePolicy,
): CausalLM {
  const model = definition.build(config, { maxSeqLen });
  assignNames(model);
  const parameters = parametersOf(model);
  const recipe = recipes(definition, config, checkpoint, parameters);
  for (const parameter of parameters) {
    const from = parameter.computed ?? recipe(parameter);
    const stored = checkpoint.format === 'dummy' ? config.dtype : checkStored(parameter, from, checkpoint.tensors);
    parameter.bind({ from, dtype: parameter.computed === undefined ? store(parameter, stored) : 'float32' });
  }
  return model;
}

function recipes(
  definition: ModelDefinition,
  config: ModelConfig,
  checkpoint: Checkpoint,
  parameters: readonly Parameter[],
): (parameter: Parameter) => WeightExpr {
  switch (checkpoint.format) {
    case 'typert': {
      const recipe = typertWeights(parameters, checkpoint.tensors);
      return ({ name }) => recipe(name);
    }
    case 'dummy': {
      const seed = Number(checkpoint.config.typert_dummy_seed ?? 0);
      return (parameter) => dummyRecipe(parameter, seed + parameters.indexOf(parameter));
    }
    case 'gguf':
    case 'huggingface': {
      const recipe = compileWeightMap(definition.weights(config));
      return ({ name }) => recipe(name);
    }
    default:
      return checkpoint.format satisfies never;
  }
}

/** Norms let everything through, biases add nothing; the rest is random. */
function dummyRecipe({ name, shape }: Parameter, seed: number): WeightExpr {
  if (shape.length > 1) return { kind: 'random', shape, seed };
  return values(new Array<number>(shape[0] ?? 1).fill(name.endsWith('bias') ? 0 : 1));
}

function checkStored(parameter: Parameter, from: WeightExpr, tensors: TensorSource): DType {
  if (from.kind === 'values') return 'float32';
  const { dtype, shape } = weightMeta(from, tensors);
  const where = `${tensors.label}: ${describe(from)} (${parameter.name})`;
  if (shape.length !== parameter.shape.length || shape.some((n, i) => n !== parameter.shape[i])) {
    throw new CheckpointError('wrong shape', {
      where,
      expected: `[${parameter.shape}]`,
      got: `[${shape}]`,
      remedy: 'config.json and the weights do not belong together',
    });
  }
  if (!isFloatDType(dtype) && !isBlockDType(dtype) && dtype !== 'float64') {
    throw new CheckpointError('wrong dtype', {
      where,
      expected: 'float32, bfloat16, float16 or a GGUF block format',
      got: dtype,
      remedy: 'Quantised Hugging Face checkpoints are not read yet; use the unquantised one or a GGUF',
    });
  }
  return dtype;
}

/**
 * The policy of engines: with float32 arithmetic weights keep the checkpoint's bits (each converts exactly when used), with narrower arithmetic they take its dtype;
 * block formats stay packed where the target runs them so.
 */
export function enginePolicy(dtype: FloatDType, keepsBlocks: (dtype: DType) => boolean): StorePolicy {
  return (_parameter, stored) => {
    if (isBlockDType(stored)) return keepsBlocks(stored) ? stored : dtype;
    return dtype === 'float32' && isFloatDType(stored) ? stored : dtype;
  };
}
