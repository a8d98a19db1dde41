// Attributes of attention: one description that covers the families, and its two lowered halves.

/** How q and k of each head are normed before rotation. The weights are inputs. */
export interface HeadNorm {
  readonly kind: 'rms' | 'layer';
  readonly eps: number;
  /** Added to the weight (Gemma: 1). */
  readonly weightOffset: number;
}

/** Rotary position embedding (Su et al. 2021). Frequencies are a weight, computed at build with the model's scaling. */
export interface RopeAttrs {
  /** Leading columns of each head that are rotated; even. */
  readonly rotaryDim: number;
  /** 'half': column i pairs with i + rotaryDim/2 (GPT-NeoX, Llama); 'interleaved': 2i with 2i + 1 (GPT-J). */
  readonly style: 'half' | 'interleaved';
  /** Factor on cos and sin (YaRN, LongRoPE); 1 otherwise. */
  readonly attentionFactor: number;
}

interface HeadShape {
  /** Which layer's cache. */
  readonly layer: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  /** Columns of a query and key head. */
  readonly headDim: number;
  /** Columns of a value head. */
  readonly valueDim: number;
}

/** Attributes of `ropeCache`: what happens to q and k before k and v enter the cache. */
export interface RopeCacheAttrs extends HeadShape {
  readonly norm?: HeadNorm;
  readonly rope?: RopeAttrs;
}

/** Attributes of `pagedAttention`: which keys a query sees, and how scores are made. */
export interface PagedAttentionAttrs extends HeadShape {
  /** Factor on q·k. */
  readonly scale: number;
  /** A query sees keys at positions > its own − window. */
  readonly window?: number;
  /** With a window: a query sees the first so many keys as well (attention sinks, Xiao et al. 2023). */
  readonly sinkTokens?: number;
  /** A query sees keys of its own chunk of this many positions only (Llama 4). */
  readonly chunk?: number;
  /** Scores become cap · tanh(score / cap) (Gemma 2). */
  readonly softcap?: number;
}

/** Attributes of `attention`, the op that models use: both halves. */
export interface AttentionAttrs extends RopeCacheAttrs, PagedAttentionAttrs {}

/** The KV cache that one layer needs. */
export interface CacheSpec {
  readonly layer: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
  readonly window?: number;
  readonly sinkTokens?: number;
  /** Layers of a group see the same positions and share the step inputs that say where their keys are; default 0. */
  readonly group?: number;
  /** Layers of different groups with the same number share memory, of which each block belongs to one of them; default: the layer alone has it. */
  readonly pool?: number;
}
