// `typert`: load a model and generate.

/** @module typert */

export { openResources } from './base/dispose.ts';
export type { DType, FloatDType } from './base/dtype.ts';
export {
  CheckpointError,
  CompileError,
  ConfigError,
  EngineError,
  ExecutorError,
  GraphError,
  HubError,
  RequestError,
  TargetError,
  TypertError,
  UsageError,
} from './base/errors.ts';
export type { Progress, ProgressEvent } from './base/progress.ts';
export { version } from './base/version.ts';
export type { ChatMessage, ChatPrompt, PromptInput, TextPrompt, TokensPrompt } from './llm/inputs.ts';
export { type GenerateOptions, LLM } from './llm/llm.ts';
export type { KvCacheConfig, LLMOptions, SchedulerConfig } from './llm/options.ts';
export type {
  CompletionOutput,
  FinishReason,
  Logits,
  Logprob,
  RequestOutput,
  StreamedCompletionOutput,
  StreamedRequestOutput,
  TokenLogprobs,
} from './llm/outputs.ts';
export type { SamplingParams } from './run/decode/sampling-params.ts';
