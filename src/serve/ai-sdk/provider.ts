// `typert/ai`: a provider for Vercel's AI SDK (specification v3) that runs in this process: `streamText({ model: typert('name') })` without a socket or JSON in between.

/** @module typert/ai */

import type {
  EmbeddingModelV3,
  ImageModelV3,
  LanguageModelV3,
  LanguageModelV3CallOptions,
  LanguageModelV3Content,
  LanguageModelV3FinishReason,
  LanguageModelV3GenerateResult,
  LanguageModelV3StreamPart,
  LanguageModelV3Usage,
  ProviderV3,
  SharedV3Warning,
} from '@ai-sdk/provider';
import { type ChatFinish, type ChatRun, collectChat, type Usage } from '../chat-run.ts';
import { ServeError } from '../errors.ts';
import { check } from '../http.ts';
import { type InProcessOptions, loadInProcess } from '../in-process.ts';
import { startBody } from '../openai/chat.ts';
import { chatSchema } from '../openai/chat-schema.ts';
import type { Registry } from '../registry.ts';
import { providerName, toBody } from './prompt.ts';

export type { InProcessOptions } from '../in-process.ts';

/** Models by name, as the AI SDK takes them: `provider('name')`. */
export interface TypertProvider extends ProviderV3 {
  (modelId?: string): LanguageModelV3;
  languageModel(modelId?: string): LanguageModelV3;
}

/** A provider over loaded models; they stay the caller's. Without a name the first model answers. */
export async function createTypert(options: InProcessOptions): Promise<TypertProvider> {
  const registry = await loadInProcess(options);
  const languageModel = (modelId?: string): LanguageModelV3 => new TypertModel(registry, modelId);
  const none = (what: string) => (): never => {
    throw new ServeError(`this provider has no ${what} models`, { status: 404, code: 'model_not_found' });
  };
  return Object.assign((modelId?: string) => languageModel(modelId), {
    specificationVersion: 'v3' as const,
    languageModel,
    embeddingModel: none('embedding') as (modelId: string) => EmbeddingModelV3,
    imageModel: none('image') as (modelId: string) => ImageModelV3,
  });
}

const finishes = { stop: 'stop', length: 'length', tool_calls: 'tool-calls' } as const;

function finishOf(finish: ChatFinish): LanguageModelV3FinishReason {
  return { unified: finishes[finish], raw: finish };
}

function usageOf({ promptTokens, completionTokens, cachedTokens }: Usage): LanguageModelV3Usage {
  return {
    inputTokens: {
      total: promptTokens,
      noCache: cachedTokens === undefined ? undefined : promptTokens - cachedTokens,
      cacheRead: cachedTokens,
      cacheWrite: undefined,
    },
    outputTokens: { total: completionTokens, text: undefined, reasoning: undefined },
  };
}

class TypertModel implements LanguageModelV3 {
  readonly specificationVersion = 'v3';
  readonly provider = providerName;
  readonly modelId: string;
  /** No URL is fetched here: the SDK downloads what it wants to send. */
  readonly supportedUrls = {};
  readonly #registry: Registry;

  constructor(registry: Registry, modelId: string | undefined) {
    this.#registry = registry;
    this.modelId = registry.get(modelId).name;
  }

  async doGenerate(options: LanguageModelV3CallOptions): Promise<LanguageModelV3GenerateResult> {
    const { run, warnings } = this.#start(options, options.abortSignal);
    const [answer] = await collectChat(run);
    const { content, reasoning, toolCalls, finish } = answer!;
    const parts: LanguageModelV3Content[] = [];
    if (reasoning !== '') parts.push({ type: 'reasoning', text: reasoning });
    if (content !== '') parts.push({ type: 'text', text: content });
    for (const { id, name, arguments: input } of toolCalls)
      parts.push({ type: 'tool-call', toolCallId: id, toolName: name, input });
    return { content: parts, finishReason: finishOf(finish), usage: usageOf(run.usage()), warnings };
  }

  async doStream(options: LanguageModelV3CallOptions): Promise<{ stream: ReadableStream<LanguageModelV3StreamPart> }> {
    const left = new AbortController();
    const { abortSignal } = options;
    const signal = abortSignal === undefined ? left.signal : AbortSignal.any([abortSignal, left.signal]);
    const { run, warnings } = this.#start(options, signal);
    const parts = partsOf(run, warnings);
    const stream = new ReadableStream<LanguageModelV3StreamPart>(
      {
        pull: async (controller) => {
          const { done, value } = await parts.next();
          if (done) controller.close();
          else controller.enqueue(value);
        },
        cancel: async (reason) => {
          left.abort(reason);
          await parts.return();
        },
      },
      { highWaterMark: 0 },
    );
    return { stream };
  }

  #start(
    options: LanguageModelV3CallOptions,
    signal: AbortSignal | undefined,
  ): { readonly run: ChatRun; readonly warnings: SharedV3Warning[] } {
    const { body, warnings } = toBody(this.modelId, options);
    const services = { registry: this.#registry, observer: {} };
    const scope = { signal: signal ?? new AbortController().signal, observer: {} };
    return { run: startBody(check(chatSchema, body), services, scope), warnings };
  }
}

/** An answer as the SDK's parts: stretches of text and of reasoning have a beginning and an end. */
async function* partsOf(
  run: ChatRun,
  warnings: SharedV3Warning[],
): AsyncGenerator<LanguageModelV3StreamPart, void, undefined> {
  let open: { readonly type: 'text' | 'reasoning'; readonly id: string } | undefined;
  let stretches = 0;
  yield { type: 'stream-start', warnings };
  try {
    for await (const { pieces, finish } of run.events) {
      for (const piece of pieces) {
        const type = piece.type === 'content' ? 'text' : piece.type === 'reasoning' ? 'reasoning' : undefined;
        if (open !== undefined && open.type !== type) {
          yield { type: `${open.type}-end`, id: open.id };
          open = undefined;
        }
        if (piece.type === 'toolCall') {
          const { id, name: toolName, arguments: input } = piece;
          yield { type: 'tool-input-start', id, toolName };
          yield { type: 'tool-input-delta', id, delta: input };
          yield { type: 'tool-input-end', id };
          yield { type: 'tool-call', toolCallId: id, toolName, input };
          continue;
        }
        if (open === undefined) {
          open = { type: type!, id: String(stretches++) };
          yield { type: `${open.type}-start`, id: open.id };
        }
        yield { type: `${open.type}-delta`, id: open.id, delta: piece.text };
      }
      if (finish === undefined) continue;
      if (open !== undefined) yield { type: `${open.type}-end`, id: open.id };
      open = undefined;
      yield { type: 'finish', finishReason: finishOf(finish), usage: usageOf(run.usage()) };
    }
  } catch (error) {
    yield { type: 'error', error };
  }
}
