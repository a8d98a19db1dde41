// Self-attention with its projections. What a family adds (head norms, rope kinds, windows, sinks …) are options.
import { values } from '../checkpoint/weights.ts';
import { attention, layerNorm, rmsNorm } from './functional.ts';
import { ColumnLinear, RowLinear } from './layers.ts';
import { Module, Parameter } from './module.ts';
import { type RopeProblem, type RopeTable, ropeTable } from './rope.ts';
import type { StepInputs } from './step.ts';
import type { Tensor } from './tensor.ts';

/** Norms of q and k before rotation. */
export interface QkNormOptions {
  readonly kind: 'rms' | 'layer';
  readonly eps: number;
  readonly weightOffset?: number;
  /** 'head': each head is normed by itself (Qwen3, Gemma3); 'all': all columns of the projection at once (OLMo2). */
  readonly over: 'head' | 'all';
}

/** Options of `Attention`; what is left out is off. */
export interface AttentionOptions {
  /** Index of this layer's cache. */
  readonly layer: number;
  readonly hiddenSize: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly valueDim?: number;
  readonly qkvBias?: boolean;
  readonly denseBias?: boolean;
  /** Factor on q·k; default 1/√headDim. */
  readonly scale?: number;
  readonly rope?: RopeProblem & { readonly style?: 'half' | 'interleaved' };
  readonly qkNorm?: QkNormOptions;
  readonly window?: number;
  readonly chunk?: number;
  readonly softcap?: number;
  /** A learned logit a head that takes part in the softmax only (GPT-OSS). */
  readonly sinks?: boolean;
  /** ALiBi slopes (Press et al. 2022), one a head. */
  readonly alibiSlopes?: readonly number[];
}

/** Causal self-attention: x [T, hiddenSize] → [T, hiddenSize]. */
export class Attention extends Module {
  readonly q: ColumnLinear;
  readonly k: ColumnLinear;
  readonly v: ColumnLinear;
  readonly dense: RowLinear;
  readonly qLayernorm: HeadNormWeight | undefined;
  readonly kLayernorm: HeadNormWeight | undefined;
  readonly rotaryFrequencies: Parameter | undefined;
  readonly sinks: Parameter | undefined;
  readonly alibiSlopes: Parameter | undefined;
  readonly options: AttentionOptions;
  readonly #rope: RopeTable | undefined;

  constructor(options: AttentionOptions) {
    super();
    const {
      hiddenSize,
      numHeads,
      numKvHeads,
      headDim,
      valueDim = headDim,
      qkvBias = false,
      denseBias = false,
      qkNorm,
    } = options;
    this.options = options;
    this.q = new ColumnLinear(hiddenSize, numHeads * headDim, { bias: qkvBias });
    this.k = new ColumnLinear(hiddenSize, numKvHeads * headDim, { bias: qkvBias });
    this.v = new ColumnLinear(hiddenSize, numKvHeads * valueDim, { bias: qkvBias });
    this.dense = new RowLinear(numHeads * valueDim, hiddenSize, { bias: denseBias });
    const normed = (heads: number) =>
      qkNorm === undefined ? undefined : new HeadNormWeight(qkNorm.over === 'all' ? heads * headDim : headDim);
    this.qLayernorm = normed(numHeads);
    this.kLayernorm = normed(numKvHeads);
    this.#rope = options.rope === undefined ? undefined : ropeTable(options.rope);
    this.rotaryFrequencies =
      this.#rope === undefined
        ? undefined
        : new Parameter([this.#rope.frequencies.length], { computed: values(this.#rope.frequencies) });
    this.sinks = options.sinks ? new Parameter([numHeads], { split: { kind: 'column', axis: 0 } }) : undefined;
    this.alibiSlopes =
      options.alibiSlopes === undefined
        ? undefined
        : new Parameter([numHeads], { computed: values(options.alibiSlopes) });
  }

  /** x [T, hiddenSize] → [T, hiddenSize]. */
  forward(x: Tensor, step: StepInputs): Tensor {
    const {
      layer,
      numHeads,
      numKvHeads,
      headDim,
      valueDim = headDim,
      scale = 1 / Math.sqrt(headDim),
      rope,
      qkNorm,
      window,
      chunk,
      softcap,
    } = this.options;
    const wholeNorm = (projected: Tensor, weight: HeadNormWeight | undefined): Tensor => {
      if (qkNorm?.over !== 'all' || weight === undefined) return projected;
      return qkNorm.kind === 'rms'
        ? rmsNorm(projected, weight.weight, qkNorm.eps, weight.name, qkNorm.weightOffset ?? 0)
        : layerNorm(projected, weight.weight, undefined, qkNorm.eps, weight.name);
    };
    const byHead = qkNorm?.over === 'head' ? qkNorm : undefined;
    const attended = attention(
      {
        q: wholeNorm(this.q.forward(x), this.qLayernorm),
        k: wholeNorm(this.k.forward(x), this.kLayernorm),
        v: this.v.forward(x),
        qNorm: byHead && this.qLayernorm?.weight,
        kNorm: byHead && this.kLayernorm?.weight,
        frequencies: this.rotaryFrequencies,
        sinks: this.sinks,
        slopes: this.alibiSlopes,
      },
      step,
      {
        layer,
        numHeads,
        numKvHeads,
        headDim,
        valueDim,
        scale,
        ...(byHead === undefined
          ? {}
          : { norm: { kind: byHead.kind, eps: byHead.eps, weightOffset: byHead.weightOffset ?? 0 } }),
        ...(rope === undefined
          ? {}
          : {
              rope: {
                rotaryDim: rope.rotaryDim,
                style: rope.style ?? 'half',
                attentionFactor: this.#rope!.attentionFactor,
              },
            }),
        ...(window === undefined ? {} : { window }),
        ...(chunk === undefined ? {} : { chunk }),
        ...(softcap === undefined ? {} : { softcap }),
      },
      this.name,
    );
    return this.dense.forward(attended);
  }
}

/** Holds the weight of a norm over q or k. */
class HeadNormWeight extends Module {
  readonly weight: Parameter;

  constructor(dim: number) {
    super();
    this.weight = new Parameter([dim]);
  }
}
