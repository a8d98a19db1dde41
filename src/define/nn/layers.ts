// Layers with one weight: linear in its parallel forms, embedding, norms.
import { embedding, layerNorm, matmul, rmsNorm } from './functional.ts';
import { Module, Parameter } from './module.ts';
import type { Tensor } from './tensor.ts';

/** Options of `Linear`. */
export interface LinearOptions {
  readonly bias?: boolean;
  /** 'column' splits outputs over ranks, 'row' inputs (the sum is reduced), 'none' repeats. Default 'column'. */
  readonly split?: 'column' | 'row' | 'none';
}

/** y = x · weightᵀ + bias; weight [outFeatures, inFeatures]. */
export class Linear extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter | undefined;

  constructor(inFeatures: number, outFeatures: number, { bias = false, split = 'column' }: LinearOptions = {}) {
    super();
    const axis = split === 'row' ? 1 : 0;
    this.weight = new Parameter([outFeatures, inFeatures], split === 'none' ? {} : { split: { kind: split, axis } });
    this.bias = bias
      ? new Parameter([outFeatures], split === 'column' ? { split: { kind: 'column', axis: 0 } } : {})
      : undefined;
  }

  /** x [M, inFeatures] → [M, outFeatures]. */
  forward(x: Tensor): Tensor {
    return matmul(x, this.weight, this.bias, this.name);
  }
}

/** Linear whose outputs split over ranks. */
export class ColumnLinear extends Linear {
  constructor(inFeatures: number, outFeatures: number, options: { readonly bias?: boolean } = {}) {
    super(inFeatures, outFeatures, { ...options, split: 'column' });
  }
}

/** Linear whose inputs split over ranks; its result is summed over them. */
export class RowLinear extends Linear {
  constructor(inFeatures: number, outFeatures: number, options: { readonly bias?: boolean } = {}) {
    super(inFeatures, outFeatures, { ...options, split: 'row' });
  }
}

/** Rows of a table: ids [T] → [T, dim]. */
export class Embedding extends Module {
  readonly weight: Parameter;

  constructor(numEmbeddings: number, embeddingDim: number) {
    super();
    this.weight = new Parameter([numEmbeddings, embeddingDim], { split: { kind: 'vocab', axis: 0 } });
  }

  /** ids [T] → [T, dim]. */
  forward(ids: Tensor): Tensor {
    return embedding(ids, this.weight, this.name);
  }
}

/** Root-mean-square norm (Zhang & Sennrich 2019) over the columns of [T, dim]. */
export class RmsNorm extends Module {
  readonly weight: Parameter;
  readonly eps: number;
  readonly weightOffset: number;

  constructor(dim: number, eps: number, weightOffset = 0) {
    super();
    this.weight = new Parameter([dim]);
    this.eps = eps;
    this.weightOffset = weightOffset;
  }

  /** x [T, dim] → [T, dim]. */
  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight, this.eps, this.name, this.weightOffset);
  }
}

/** Layer norm (Ba et al. 2016) over the columns of [T, dim]. */
export class LayerNorm extends Module {
  readonly weight: Parameter | undefined;
  readonly bias: Parameter | undefined;
  readonly eps: number;

  constructor(dim: number, eps: number, options: { readonly weight?: boolean; readonly bias?: boolean } = {}) {
    super();
    this.weight = (options.weight ?? true) ? new Parameter([dim]) : undefined;
    this.bias = (options.bias ?? true) ? new Parameter([dim]) : undefined;
    this.eps = eps;
  }

  /** x [T, dim] → [T, dim]. */
  forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight, this.bias, this.eps, this.name);
  }
}

/** What norms of either kind share. */
export type Norm = Module & { forward(x: Tensor): Tensor };
