// `typert`: load a model and generate.

/** @module typert */

export { openResources } from './base/dispose.ts';
export type { DType, FloatDType } from './base/dtype.ts';
export type { ErrorFacts } from './base/errors.ts';
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
export type { EngineConfig } from './compile/engine/schema.ts';
export { ChatTemplate, type RenderOptions } from './llm/chat-template.ts';
export type {
  ChatMessage,
  ChatPrompt,
  ContentPart,
  PromptInput,
  ResolvedPrompt,
  TextPrompt,
  TokensPrompt,
} from './llm/inputs.ts';
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
export { type DecodeOptions, type EncodeOptions, Tokenizer } from './llm/tokenizer.ts';
export type { SamplingParams } from './run/decode/sampling-params.ts';
export type { ExecutorStatistics } from './run/executor/statistics.ts';
export type { CacheGroup, SessionLimits } from './run/session/batch.ts';
