// Rotary frequencies with the scalings that checkpoints name, computed at build (Su et al. 2021; YaRN: Peng et al. 2023; LongRoPE: Ding et al. 2024).

/** How a model stretches its rotary frequencies, in Hugging Face's words (`rope_scaling`, `rope_parameters`). */
export type RopeScaling =
  | { readonly ropeType: 'default' }
  | { readonly ropeType: 'linear'; readonly factor: number }
  | { readonly ropeType: 'dynamic'; readonly factor: number }
  | {
      readonly ropeType: 'llama3';
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalMaxPositionEmbeddings: number;
    }
  | {
      readonly ropeType: 'yarn';
      readonly factor: number;
      readonly originalMaxPositionEmbeddings: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      readonly truncate: boolean;
      readonly attentionFactor?: number;
      readonly mscale?: number;
      readonly mscaleAllDim?: number;
    }
  | {
      readonly ropeType: 'longrope';
      readonly factor: number;
      readonly originalMaxPositionEmbeddings: number;
      readonly shortFactor: readonly number[];
      readonly longFactor: readonly number[];
      readonly attentionFactor?: number;
    }
  /** Explicit divisors, one a frequency (GGUF's rope_freqs). */
  | { readonly ropeType: 'factors'; readonly factors: readonly number[] };

/** What a model says of its rotary embedding, and how long the engine's sequences get. */
export interface RopeProblem {
  readonly theta: number;
  /** Leading columns of a head that rotate. */
  readonly rotaryDim: number;
  readonly scaling: RopeScaling;
  readonly maxPositionEmbeddings: number;
  /** Longest sequence the engine serves: LongRoPE and dynamic NTK choose by it, once, since a cached key keeps the angle it was written with. */
  readonly maxSeqLen: number;
}

/** What rotation needs at run. */
export interface RopeTable {
  /** [rotaryDim / 2] radians a position. */
  readonly frequencies: readonly number[];
  readonly attentionFactor: number;
}

function plain(theta: number, dim: number): number[] {
  return Array.from({ length: dim / 2 }, (_, i) => 1 / theta ** ((2 * i) / dim));
}

function llama3(base: number[], s: Extract<RopeScaling, { ropeType: 'llama3' }>): number[] {
  const original = s.originalMaxPositionEmbeddings;
  return base.map((frequency) => {
    const wavelength = (2 * Math.PI) / frequency;
    if (wavelength > original / s.lowFreqFactor) return frequency / s.factor;
    if (wavelength < original / s.highFreqFactor) return frequency;
    const smooth = (original / wavelength - s.lowFreqFactor) / (s.highFreqFactor - s.lowFreqFactor);
    return ((1 - smooth) * frequency) / s.factor + smooth * frequency;
  });
}

function yarn(
  base: number[],
  { theta, rotaryDim }: RopeProblem,
  s: Extract<RopeScaling, { ropeType: 'yarn' }>,
): RopeTable {
  // The column whose wave turns `rotations` times over the original context.
  const column = (rotations: number) =>
    (rotaryDim * Math.log(s.originalMaxPositionEmbeddings / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  const round = s.truncate ? { down: Math.floor, up: Math.ceil } : { down: (x: number) => x, up: (x: number) => x };
  const low = Math.max(round.down(column(s.betaFast)), 0);
  let high = Math.min(round.up(column(s.betaSlow)), rotaryDim - 1);
  if (high === low) high += 0.001;
  const frequencies = base.map((frequency, i) => {
    const interpolated = Math.min(Math.max((i - low) / (high - low), 0), 1);
    return (frequency / s.factor) * interpolated + frequency * (1 - interpolated);
  });
  const mscale = (weight: number) => (s.factor <= 1 ? 1 : 0.1 * weight * Math.log(s.factor) + 1);
  const inferred = s.mscale && s.mscaleAllDim ? mscale(s.mscale) / mscale(s.mscaleAllDim) : mscale(1);
  return { frequencies, attentionFactor: s.attentionFactor ?? inferred };
}

/** Frequencies and attention factor of a model's rope, as Hugging Face transformers' modeling_rope_utils computes them. */
export function ropeTable(problem: RopeProblem): RopeTable {
  const { theta, rotaryDim, scaling, maxPositionEmbeddings, maxSeqLen } = problem;
  const base = plain(theta, rotaryDim);
  switch (scaling.ropeType) {
    case 'default':
      return { frequencies: base, attentionFactor: 1 };
    case 'linear':
      return { frequencies: base.map((frequency) => frequency / scaling.factor), attentionFactor: 1 };
    case 'dynamic': {
      const ratio = Math.max(maxSeqLen, maxPositionEmbeddings) / maxPositionEmbeddings;
      const stretched = theta * (scaling.factor * ratio - (scaling.factor - 1)) ** (rotaryDim / (rotaryDim - 2));
      return { frequencies: plain(stretched, rotaryDim), attentionFactor: 1 };
    }
    case 'llama3':
      return { frequencies: llama3(base, scaling), attentionFactor: 1 };
    case 'yarn':
      return yarn(base, problem, scaling);
    case 'longrope': {
      const { factor, originalMaxPositionEmbeddings: original } = scaling;
      const divisors = maxSeqLen > original ? scaling.longFactor : scaling.shortFactor;
      const attentionFactor =
        scaling.attentionFactor ?? (factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original)));
      return { frequencies: base.map((frequency, i) => frequency / divisors[i]!), attentionFactor };
    }
    case 'factors':
      return { frequencies: base.map((frequency, i) => frequency / scaling.factors[i]!), attentionFactor: 1 };
    default:
      return scaling satisfies never;
  }
}
