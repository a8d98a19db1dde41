// Feed-forward layers, in TensorRT-LLM's names: `fc` goes up (and is activated), `gate` is multiplied in, `proj` goes down.
import type { Activation } from '../graph/ops.ts';
import { activation, moeExperts, moeRoute, mul } from './functional.ts';
import { ColumnLinear, Linear, RowLinear } from './layers.ts';
import { Module, Parameter } from './module.ts';
import type { Tensor } from './tensor.ts';

/** Options of `Mlp` and `GatedMlp`. */
export interface MlpOptions {
  readonly bias?: boolean;
}

/** proj(activation(fc(x))). */
export class Mlp extends Module {
  readonly fc: ColumnLinear;
  readonly proj: RowLinear;
  readonly kind: Activation;

  constructor(hiddenSize: number, intermediateSize: number, kind: Activation, options: MlpOptions = {}) {
    super();
    this.fc = new ColumnLinear(hiddenSize, intermediateSize, options);
    this.proj = new RowLinear(intermediateSize, hiddenSize, options);
    this.kind = kind;
  }

  /** x [T, hiddenSize] → [T, hiddenSize]. */
  forward(x: Tensor): Tensor {
    return this.proj.forward(activation(this.fc.forward(x), this.kind, `${this.name}.act`));
  }
}

/** proj(activation(fc(x)) · gate(x)) (Shazeer 2020); Hugging Face calls fc `gate_proj`, gate `up_proj`, proj `down_proj`. */
export class GatedMlp extends Module {
  readonly fc: ColumnLinear;
  readonly gate: ColumnLinear;
  readonly proj: RowLinear;
  readonly kind: Activation;

  constructor(hiddenSize: number, intermediateSize: number, kind: Activation, options: MlpOptions = {}) {
    super();
    this.fc = new ColumnLinear(hiddenSize, intermediateSize, options);
    this.gate = new ColumnLinear(hiddenSize, intermediateSize, options);
    this.proj = new RowLinear(intermediateSize, hiddenSize, options);
    this.kind = kind;
  }

  /** x [T, hiddenSize] → [T, hiddenSize]. */
  forward(x: Tensor): Tensor {
    const activated = activation(this.fc.forward(x), this.kind, `${this.name}.act`);
    return this.proj.forward(mul(activated, this.gate.forward(x), `${this.name}.mul`));
  }
}

/** Options of `Moe`. */
export interface MoeOptions {
  readonly numExperts: number;
  readonly topK: number;
  readonly intermediateSize: number;
  readonly kind: Activation;
  readonly scoring?: 'softmax' | 'sigmoid';
  /** Whether the chosen experts' weights are made to sum to one. */
  readonly normalize: boolean;
  readonly scale?: number;
}

/** The stacked weights of all experts, [E, rows, columns]. */
class ExpertWeights extends Module {
  readonly weight: Parameter;

  constructor(numExperts: number, rows: number, columns: number) {
    super();
    this.weight = new Parameter([numExperts, rows, columns], { split: { kind: 'expert', axis: 0 } });
  }
}

/** Mixture of gated experts: a router chooses topK of them for each token. `fc` holds gate and up of every expert, [E, 2I, H], gate first. */
export class Moe extends Module {
  readonly router: Linear;
  readonly fc: ExpertWeights;
  readonly proj: ExpertWeights;
  readonly options: MoeOptions;

  constructor(hiddenSize: number, options: MoeOptions) {
    super();
    const { numExperts, intermediateSize } = options;
    this.router = new Linear(hiddenSize, numExperts, { split: 'none' });
    this.fc = new ExpertWeights(numExperts, 2 * intermediateSize, hiddenSize);
    this.proj = new ExpertWeights(numExperts, hiddenSize, intermediateSize);
    this.options = options;
  }

  /** x [T, hiddenSize] → [T, hiddenSize]. */
  forward(x: Tensor): Tensor {
    const { topK, scoring = 'softmax', normalize, scale = 1, kind } = this.options;
    const routed = moeRoute(this.router.forward(x), { topK, scoring, normalize, scale }, `${this.name}.route`);
    return moeExperts(x, routed, this.fc.weight, this.proj.weight, kind, `${this.name}.experts`);
  }
}
