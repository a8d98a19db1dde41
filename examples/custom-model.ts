// A model of your own: a class, a config and a weight map. docs/adding-a-model.md explains it line by line.
// "Pebble" is invented: attention and a squared-ReLU feed-forward read one norm side by side, positions come from ALiBi, and its
// checkpoints keep q, k and v in one tensor. The checkpoint here is random, so its tokens mean nothing.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LLM } from 'typert';
import { buildEngine, findTarget, openCheckpoint } from 'typert/engine';
import {
  Attention,
  type CausalLM,
  ColumnLinear,
  Embedding,
  functional,
  Mlp,
  type ModelConfig,
  Module,
  RmsNorm,
  registerModel,
  type StepInputs,
  sliceWeight,
  source,
  type Tensor,
} from 'typert/nn';

// The config: what every model has, and what this one adds. It is plain data, written into engines as it is.
interface PebbleConfig extends ModelConfig {
  readonly numAttentionHeads: number;
  readonly intermediateSize: number;
}

// The modules. Parameters get their names from the properties that hold them: `layers.0.attention.q.weight`.
class PebbleBlock extends Module {
  readonly norm: RmsNorm;
  readonly attention: Attention;
  readonly mlp: Mlp;

  constructor({ hiddenSize, intermediateSize, numAttentionHeads: heads }: PebbleConfig, layer: number) {
    super();
    this.norm = new RmsNorm(hiddenSize, 1e-5);
    this.attention = new Attention({
      layer,
      hiddenSize,
      numHeads: heads,
      numKvHeads: heads,
      headDim: hiddenSize / heads,
      alibiSlopes: Array.from({ length: heads }, (_, head) => 2 ** ((-8 * (head + 1)) / heads)),
    });
    this.mlp = new Mlp(hiddenSize, intermediateSize, 'relu2');
  }

  forward(x: Tensor, step: StepInputs): Tensor {
    const normed = this.norm.forward(x);
    const both = functional.add(this.attention.forward(normed, step), this.mlp.forward(normed), `${this.name}.both`);
    return functional.add(x, both, `${this.name}.residual`);
  }
}

class Pebble extends Module implements CausalLM {
  readonly embedding: Embedding;
  readonly layers: readonly PebbleBlock[];
  readonly norm: RmsNorm;
  readonly head: ColumnLinear;

  constructor(config: PebbleConfig) {
    super();
    this.embedding = new Embedding(config.vocabSize, config.hiddenSize);
    this.layers = Array.from({ length: config.numHiddenLayers }, (_, layer) => new PebbleBlock(config, layer));
    this.norm = new RmsNorm(config.hiddenSize, 1e-5);
    this.head = new ColumnLinear(config.hiddenSize, config.vocabSize);
  }

  // Runs once, over symbolic tensors: T tokens go in, the L rows that want logits come out.
  forward(step: StepInputs): Tensor {
    let x = this.embedding.forward(step.tokens);
    for (const layer of this.layers) x = layer.forward(x, step);
    const rows = functional.gatherRows(x, step.logitsRows, 'logits_rows');
    return this.head.forward(this.norm.forward(rows));
  }
}

registerModel<PebbleConfig>({
  architectures: ['PebbleForCausalLM'],
  // Every field is checked as it is read: a missing or wrong one is a ConfigError that names the file and the field.
  parseConfig: (fields) => ({
    architecture: 'PebbleForCausalLM',
    dtype: fields.dtype(),
    vocabSize: fields.size('vocab_size'),
    hiddenSize: fields.size('hidden_size'),
    numHiddenLayers: fields.size('num_hidden_layers'),
    maxPositionEmbeddings: fields.size('max_position_embeddings', 2048),
    numAttentionHeads: fields.size('num_attention_heads'),
    intermediateSize: fields.size('intermediate_size'),
  }),
  build: (config) => new Pebble(config),
  // Parameter names → tensors of the checkpoint. The first pattern that matches decides.
  weights: ({ hiddenSize }) => ({
    'embedding.weight': 'wte.weight',
    'layers.{n}.norm.weight': 'blocks.{n}.norm.weight',
    'layers.{n}.attention.dense.weight': 'blocks.{n}.attn.out.weight',
    'layers.{n}.attention.{part}.weight': ({ n, part }) => {
      const at = ['q', 'k', 'v'].indexOf(part!);
      return sliceWeight(source(`blocks.${n}.attn.qkv.weight`), 0, at * hiddenSize, (at + 1) * hiddenSize);
    },
    'layers.{n}.mlp.fc.weight': 'blocks.{n}.mlp.up.weight',
    'layers.{n}.mlp.proj.weight': 'blocks.{n}.mlp.down.weight',
    'norm.weight': 'norm.weight',
    'head.weight': 'wte.weight', // tied: the compiler keeps it once
  }),
});

// A checkpoint as a trainer would leave it: config.json and model.safetensors, here with random weights.
function writeCheckpoint(folder: string): void {
  const [vocab, hidden, inner, layers] = [64, 32, 96, 2];
  const shapes: Record<string, readonly number[]> = { 'wte.weight': [vocab, hidden], 'norm.weight': [hidden] };
  for (let n = 0; n < layers; n++) {
    shapes[`blocks.${n}.norm.weight`] = [hidden];
    shapes[`blocks.${n}.attn.qkv.weight`] = [3 * hidden, hidden];
    shapes[`blocks.${n}.attn.out.weight`] = [hidden, hidden];
    shapes[`blocks.${n}.mlp.up.weight`] = [inner, hidden];
    shapes[`blocks.${n}.mlp.down.weight`] = [hidden, inner];
  }
  let state = 1;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
  // safetensors: the header's length (8 bytes), the header (JSON), the tensors' bytes.
  const header: Record<string, { dtype: string; shape: readonly number[]; data_offsets: readonly [number, number] }> =
    {};
  const values: number[] = [];
  for (const [name, shape] of Object.entries(shapes)) {
    const start = values.length;
    const count = shape.reduce((a, b) => a * b);
    for (let i = 0; i < count; i++) values.push(shape.length === 1 ? 1 : random() / Math.sqrt(shape[1]! / 3));
    header[name] = { dtype: 'F32', shape, data_offsets: [start * 4, values.length * 4] };
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  writeFileSync(
    join(folder, 'model.safetensors'),
    Buffer.concat([length, json, Buffer.from(Float32Array.from(values).buffer)]),
  );
  const config = {
    architectures: ['PebbleForCausalLM'],
    dtype: 'float32',
    vocab_size: vocab,
    hidden_size: hidden,
    intermediate_size: inner,
    num_hidden_layers: layers,
    num_attention_heads: 4,
    max_position_embeddings: 128,
  };
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
}

const folder = mkdtempSync(join(tmpdir(), 'typert-custom-'));
writeCheckpoint(folder);

// Building needs the model's code; the engine does not: any process can open it.
const engineDir = join(folder, 'engine');
{
  using checkpoint = await openCheckpoint(folder);
  const { graph, plan } = await buildEngine({ checkpoint, target: findTarget('auto'), engineDir });
  console.log(`${graph.nodes.length} nodes, ${plan.phases.forward.length + plan.phases.sample.length} launches a step`);
}

{
  await using llm = await LLM.load(engineDir);
  // No tokenizer came with the checkpoint: prompts and outputs are token ids.
  const { outputs } = await llm.generate({ promptTokenIds: [3, 1, 4, 1, 5] }, { maxTokens: 12 });
  console.log(`[${outputs[0]!.tokenIds}] ${outputs[0]!.finishReason}`);
}
rmSync(folder, { recursive: true });
