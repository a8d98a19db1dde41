// The decoder-only transformer that most families are: they differ in their layers' parts and a few factors.

import type { Attention } from './attention.ts';
import { add, gatherRows, scale, softcap } from './functional.ts';
import { ColumnLinear, Embedding, type Norm } from './layers.ts';
import { Module } from './module.ts';
import type { CausalLM, StepInputs } from './step.ts';
import type { Tensor } from './tensor.ts';

/** The parts of a `DecoderLayer`. */
export interface DecoderLayerParts {
  readonly attention: Attention;
  readonly mlp: Module & { forward(x: Tensor): Tensor };
  /** Before attention. */
  readonly inputLayernorm?: Norm;
  /** Before the feed-forward part; absent with `parallel` means it shares the input norm. */
  readonly postLayernorm?: Norm;
  /** After attention, before the residual is added (Gemma 2, OLMo 2). */
  readonly postAttentionLayernorm?: Norm;
  /** After the feed-forward part, before the residual is added. */
  readonly postFeedforwardLayernorm?: Norm;
  /** Attention and feed-forward both read the layer's input (GPT-J, GPT-NeoX, Falcon, Cohere). */
  readonly parallel?: boolean;
  /** Factor on what each part adds to the residual (Granite). */
  readonly residualMultiplier?: number;
}

/** One block: residual connections around attention and the feed-forward part. */
export class DecoderLayer extends Module {
  readonly inputLayernorm: Norm | undefined;
  readonly attention: Attention;
  readonly postAttentionLayernorm: Norm | undefined;
  readonly postLayernorm: Norm | undefined;
  readonly mlp: Module & { forward(x: Tensor): Tensor };
  readonly postFeedforwardLayernorm: Norm | undefined;
  readonly parallel: boolean;
  readonly residualMultiplier: number;

  constructor(parts: DecoderLayerParts) {
    super();
    this.inputLayernorm = parts.inputLayernorm;
    this.attention = parts.attention;
    this.postAttentionLayernorm = parts.postAttentionLayernorm;
    this.postLayernorm = parts.postLayernorm;
    this.mlp = parts.mlp;
    this.postFeedforwardLayernorm = parts.postFeedforwardLayernorm;
    this.parallel = parts.parallel ?? false;
    this.residualMultiplier = parts.residualMultiplier ?? 1;
  }

  /** x [T, hiddenSize] → [T, hiddenSize]. */
  forward(x: Tensor, step: StepInputs): Tensor {
    const normed = this.inputLayernorm?.forward(x) ?? x;
    const attended = this.#branch(this.attention.forward(normed, step), this.postAttentionLayernorm, 'attention');
    if (this.parallel) {
      const fed = this.#branch(
        this.mlp.forward(this.postLayernorm?.forward(x) ?? normed),
        this.postFeedforwardLayernorm,
        'mlp',
      );
      return add(x, add(attended, fed, `${this.name}.branches`), `${this.name}.residual`);
    }
    const middle = add(x, attended, `${this.name}.attention_residual`);
    const fed = this.#branch(
      this.mlp.forward(this.postLayernorm?.forward(middle) ?? middle),
      this.postFeedforwardLayernorm,
      'mlp',
    );
    return add(middle, fed, `${this.name}.mlp_residual`);
  }

  #branch(x: Tensor, norm: Norm | undefined, part: string): Tensor {
    return scale(norm?.forward(x) ?? x, this.residualMultiplier, `${this.name}.${part}_scale`);
  }
}

/** The parts of a `Decoder`. */
export interface DecoderParts {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly layers: readonly DecoderLayer[];
  readonly lnF?: Norm;
  /** Learned absolute positions: how many (GPT-2, OPT). */
  readonly numPositions?: number;
  /** Factor on the embeddings (Gemma, Granite). */
  readonly embeddingMultiplier?: number;
  /** Norm of the embeddings (BLOOM). */
  readonly lnEmbed?: Norm;
}

/** Embedding, layers and the final norm; its parameters carry TensorRT-LLM's names. */
export class Decoder extends Module {
  readonly vocabEmbedding: Embedding;
  readonly positionEmbedding: Embedding | undefined;
  readonly lnEmbed: Norm | undefined;
  readonly layers: readonly DecoderLayer[];
  readonly lnF: Norm | undefined;
  readonly embeddingMultiplier: number;

  constructor(parts: DecoderParts) {
    super();
    this.vocabEmbedding = new Embedding(parts.vocabSize, parts.hiddenSize);
    this.positionEmbedding =
      parts.numPositions === undefined ? undefined : new Embedding(parts.numPositions, parts.hiddenSize);
    this.lnEmbed = parts.lnEmbed;
    this.layers = parts.layers;
    this.lnF = parts.lnF;
    this.embeddingMultiplier = parts.embeddingMultiplier ?? 1;
  }

  /** Hidden states [L, hiddenSize] of the rows that want logits, after the final norm. */
  forward(step: StepInputs): Tensor {
    let x = scale(this.vocabEmbedding.forward(step.tokens), this.embeddingMultiplier, `${this.name}.embedding_scale`);
    if (this.positionEmbedding !== undefined)
      x = add(x, this.positionEmbedding.forward(step.positions), `${this.name}.add_positions`);
    x = this.lnEmbed?.forward(x) ?? x;
    for (const layer of this.layers) x = layer.forward(x, step);
    // Rows are gathered before the last norm: only rows that want logits are normed and projected.
    const rows = gatherRows(x, step.logitsRows, `${this.name}.logits_rows`);
    return this.lnF?.forward(rows) ?? rows;
  }
}

/** The parts of a `DecoderForCausalLM`. */
export interface DecoderForCausalLMParts extends DecoderParts {
  readonly headBias?: boolean;
  /** Factor on the logits (Granite: 1 / logits_scaling; Cohere: logit_scale). */
  readonly logitsMultiplier?: number;
  readonly finalSoftcap?: number;
}

/** A decoder with a language-model head. */
export class DecoderForCausalLM extends Module implements CausalLM {
  readonly transformer: Decoder;
  readonly lmHead: ColumnLinear;
  readonly logitsMultiplier: number;
  readonly finalSoftcap: number | undefined;

  constructor(parts: DecoderForCausalLMParts) {
    super();
    this.transformer = new Decoder(parts);
    this.lmHead = new ColumnLinear(parts.hiddenSize, parts.vocabSize, { bias: parts.headBias ?? false });
    this.logitsMultiplier = parts.logitsMultiplier ?? 1;
    this.finalSoftcap = parts.finalSoftcap;
  }

  /** Logits [L, vocabSize]. */
  forward(step: StepInputs): Tensor {
    const logits = this.lmHead.forward(this.transformer.forward(step));
    return softcap(scale(logits, this.logitsMultiplier, 'logits_scale'), this.finalSoftcap, 'logits_softcap');
  }
}
