// The built-in architectures. Importing this file registers them.
import { gemma } from './gemma.ts';
import { gemma2 } from './gemma2.ts';
import { gemma3 } from './gemma3.ts';
import { gptNeoX } from './gpt-neox.ts';
import { gpt2 } from './gpt2.ts';
import { granite } from './granite.ts';
import { llama } from './llama.ts';
import { mistral } from './mistral.ts';
import { mixtral } from './mixtral.ts';
import { olmo2 } from './olmo2.ts';
import { phi3 } from './phi3.ts';
import { qwen2 } from './qwen2.ts';
import { qwen3 } from './qwen3.ts';
import { qwen3Moe } from './qwen3-moe.ts';
import { type ModelConfig, type ModelDefinition, registerModel } from './registry.ts';
import { smolLM3 } from './smollm3.ts';
import { starcoder2 } from './starcoder2.ts';

const builtIn = [
  llama,
  mistral,
  mixtral,
  qwen2,
  qwen3,
  qwen3Moe,
  gemma,
  gemma2,
  gemma3,
  phi3,
  gpt2,
  gptNeoX,
  starcoder2,
  olmo2,
  granite,
  smolLM3,
];
for (const definition of builtIn) registerModel(definition as unknown as ModelDefinition<ModelConfig>);

export { architectures, findModel, type ModelConfig, type ModelDefinition, registerModel } from './registry.ts';
