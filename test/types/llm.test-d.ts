// What the types of `typert` promise. Checked by `npm run types`; never run.
import {
  ConfigError,
  type KvCacheConfig,
  LLM,
  type LLMOptions,
  type Logits,
  type PromptInput,
  type RequestOutput,
  type SamplingParams,
  type StreamedRequestOutput,
  type TypertError,
} from 'typert';
import { expectTypeOf } from 'vitest';

// Loading.
expectTypeOf(LLM.load).parameter(0).toEqualTypeOf<string>();
expectTypeOf(LLM.load).parameter(1).toEqualTypeOf<LLMOptions | undefined>();
expectTypeOf(LLM.load).returns.toExtend<Promise<LLM>>();
expectTypeOf<LLM>().toExtend<AsyncDisposable>();
({
  target: 'auto',
  dtype: 'bfloat16',
  maxBatchSize: 8,
  kvCacheConfig: { maxTokens: 4096, tokensPerBlock: 16 },
  schedulerConfig: { capacitySchedulerPolicy: 'max_utilization' },
}) satisfies LLMOptions;
// @ts-expect-error: not a target
void LLM.load('model', { target: 'gpu' });
// @ts-expect-error: not a dtype of activations
void LLM.load('model', { dtype: 'int8' });
// @ts-expect-error: TensorRT-LLM's Python spelling
void LLM.load('model', { max_batch_size: 8 });
// @ts-expect-error: left out or given, never undefined
({ maxTokens: undefined }) satisfies KvCacheConfig;
// @ts-expect-error: made by `load` only
void new LLM();

// Prompts.
'Once' satisfies PromptInput;
({ prompt: 'Once', addSpecialTokens: false }) satisfies PromptInput;
({ promptTokenIds: [1, 2] }) satisfies PromptInput;
({
  messages: [{ role: 'user', content: 'Hello' }],
  chatTemplateKwargs: { enable_thinking: false },
}) satisfies PromptInput;
// @ts-expect-error: a bare list of ids could be meant as several prompts
[1, 2] satisfies PromptInput;
// @ts-expect-error: a message has a role
({ messages: [{ content: 'Hello' }] }) satisfies PromptInput;

// One prompt gives one output, several give a list.
declare const llm: LLM;
const signal = new AbortController().signal;
expectTypeOf(llm.generate('Once')).resolves.toEqualTypeOf<RequestOutput>();
expectTypeOf(
  llm.generate({ promptTokenIds: [1] }, { maxTokens: 4 }, { signal }),
).resolves.toEqualTypeOf<RequestOutput>();
expectTypeOf(llm.generate(['Once'])).resolves.toEqualTypeOf<RequestOutput[]>();
expectTypeOf(llm.generate(['Once', { prompt: 'Twice' }] as const, [{ n: 2 }, {}])).resolves.toEqualTypeOf<
  RequestOutput[]
>();
// @ts-expect-error: one prompt has one set of parameters
void llm.generate('Once', [{ maxTokens: 4 }]);
// @ts-expect-error: one prompt at a time is streamed
void llm.generateAsync(['Once', 'Twice']);
expectTypeOf(llm.generateAsync('Once')).toEqualTypeOf<AsyncGenerator<StreamedRequestOutput, void, undefined>>();

// Outputs.
declare const output: RequestOutput;
declare const part: StreamedRequestOutput;
expectTypeOf(part).toExtend<RequestOutput>();
expectTypeOf(part.textDelta).toEqualTypeOf<string>();
expectTypeOf(part.outputs[0]!.tokenIdsDelta).toEqualTypeOf<readonly number[]>();
expectTypeOf(output.prompt).toEqualTypeOf<string | null>();
expectTypeOf(output.outputs[0]).toBeNullable();
expectTypeOf(output.outputs[0]!.text).toEqualTypeOf<string>();
expectTypeOf(output.outputs[0]!.finishReason).toEqualTypeOf<'stop' | 'length' | 'timeout' | 'cancelled' | null>();
expectTypeOf(output.outputs[0]!.stopReason).toEqualTypeOf<number | string | null>();
expectTypeOf(output.outputs[0]!.generationLogits).toEqualTypeOf<Logits | undefined>();
expectTypeOf(output.outputs[0]!.logprobs?.[0]?.get(7)?.logprob).toEqualTypeOf<number | undefined>();
expectTypeOf<Logits['data']>().toExtend<Float32Array>();
// @ts-expect-error: only streams have deltas
void output.textDelta;
// @ts-expect-error: outputs are read only
output.outputs = [];

// Sampling parameters.
({
  maxTokens: 8,
  temperature: 0.7,
  topK: 40,
  topP: 0.9,
  minP: 0.05,
  seed: 1n,
  stop: ['\n'],
  embeddingBias: new Map([[5, -1]]),
}) satisfies SamplingParams;
// @ts-expect-error: a number
({ temperature: '0.7' }) satisfies SamplingParams;
// @ts-expect-error: TensorRT-LLM's Python spelling
({ max_tokens: 8 }) satisfies SamplingParams;
// @ts-expect-error: texts go to `bad`, tokens to `badTokenIds`
({ badTokenIds: ['word'] }) satisfies SamplingParams;

// Errors.
expectTypeOf(new ConfigError('missing field', { where: 'config.json' })).toExtend<TypertError>();
expectTypeOf<TypertError['remedy']>().toEqualTypeOf<string | undefined>();
