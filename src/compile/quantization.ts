// How a build quantises weights, in the words of TensorRT-LLM's quant_config; checked before anything is compiled.
import type { DType } from '../base/dtype.ts';
import { CompileError } from '../base/errors.ts';
import { type GroupSize, groupDType, groupSizes } from '../define/checkpoint/group-blocks.ts';

/** Weight-only algorithms: bits of the weights in groups; `A16`: activations are not stored in fewer bits. */
export const quantAlgos = ['W8A16', 'W4A16'] as const;
/** TensorRT-LLM's names: bits of weights and of activations. */
export type QuantAlgo = (typeof quantAlgos)[number];
export const activationKinds = ['auto', 'float'] as const;

/** Quantisation of a build, after TensorRT-LLM's `QuantConfig`. */
export interface QuantConfig {
  /** Weights of products in 8 or 4 bits, round-to-nearest. Default: as the checkpoint has them. */
  readonly quantAlgo?: QuantAlgo;
  /** Columns that share a scale: 32, 64 or 128. Default 32. */
  readonly groupSize?: GroupSize;
  /** Whether groups have a minimum besides their scale. Default false. */
  readonly hasZeroPoint?: boolean;
  /** Modules whose products stay as they are: names, or ends or beginnings with `*`. Default `['lm_head']`; embeddings, norms and routers always stay. */
  readonly excludeModules?: readonly string[];
  /**
   * What quantised weights (a GGUF file's too) are multiplied with. 'auto': whole numbers in groups of 32 where the target is quicker so, as in llama.cpp; 'float': activations as they
   * are, more exact and slower. Default 'auto'.
   */
  readonly activations?: (typeof activationKinds)[number];
}

/** Weights of a build that are quantised, and in which dtype. */
export interface WeightQuantization {
  readonly dtype: DType;
  readonly groupSize: GroupSize;
  readonly excludes: (module: string) => boolean;
}

const refuse = (where: string, expected: string, got: unknown): never => {
  throw new CompileError('not a quantisation', { where: `quantConfig.${where}`, expected, got: String(got) });
};

/** What a config asks for; undefined when weights stay as they are. Throws CompileError on values there are not. */
export function weightQuantization(config: QuantConfig): WeightQuantization | undefined {
  const {
    quantAlgo,
    groupSize = 32,
    hasZeroPoint = false,
    excludeModules = ['lm_head'],
    activations = 'auto',
  } = config;
  if (!activationKinds.includes(activations)) refuse('activations', activationKinds.join(' or '), activations);
  if (quantAlgo === undefined) {
    for (const name of ['groupSize', 'hasZeroPoint', 'excludeModules'] as const)
      if (config[name] !== undefined) refuse(name, 'quantAlgo beside it', 'none');
    return undefined;
  }
  if (!quantAlgos.includes(quantAlgo)) refuse('quantAlgo', quantAlgos.join(' or '), quantAlgo);
  if (!groupSizes.includes(groupSize)) refuse('groupSize', groupSizes.join(', '), groupSize);
  const dtype = groupDType({ bits: quantAlgo === 'W8A16' ? 8 : 4, size: groupSize, zeroPoint: hasZeroPoint });
  const patterns = excludeModules.map((pattern) => {
    const parts = pattern.split('*').map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'));
    return new RegExp(`(^|\\.)${parts.join('.*')}$`);
  });
  return { dtype, groupSize, excludes: (module) => patterns.some((pattern) => pattern.test(module)) };
}
