// The LLM: a model that is loaded, with a tokenizer. What most people use TypeRT through.

import { RequestError } from '../base/errors.ts';
import { openEngine } from '../compile/engine/read.ts';
import type { EngineConfig } from '../compile/engine/schema.ts';
import { checkSamplingParams } from '../run/decode/resolve.ts';
import type { SamplingParams } from '../run/decode/sampling-params.ts';
import {
  type EngineSnapshot,
  Executor,
  type ExecutorStatistics,
  type KvCacheEvent,
  type KvCacheRetentionConfig,
  type Profile,
  type SessionLimits,
} from '../run/executor/index.ts';
import { ChatTemplate } from './chat-template.ts';
import { type PromptInput, type ResolvedPrompt, resolvePrompt } from './inputs.ts';
import { prepareEngine } from './load.ts';
import { type LLMOptions, resolveOptions } from './options.ts';
import type { RequestOutput, StreamedRequestOutput } from './outputs.ts';
import { collect, streamRequest } from './stream.ts';
import { Tokenizer } from './tokenizer.ts';

/** How a request is treated, apart from decoding. */
export interface GenerateOptions {
  /** Aborting it cancels the request; waiting for it then throws the signal's reason. */
  readonly signal?: AbortSignal;
  /** From 0 to 1; greater is served first. Default 0.5. */
  readonly priority?: number;
  /** Milliseconds that the request may take; then it ends with what it has and finishReason 'timeout'. */
  readonly allottedTimeMs?: number;
  /** Cached prefixes are shared only with requests of the same salt. Default: none. */
  readonly cacheSalt?: string;
  /** How long the request's KV cache blocks are kept for others. */
  readonly kvCacheRetentionConfig?: KvCacheRetentionConfig;
}

/** A model that is loaded, with its tokenizer. Disposing it ends its engine and all open requests. */
export class LLM implements AsyncDisposable {
  /** The engine's folder. */
  readonly engineDir: string;
  /** The engine's config.json. */
  readonly config: EngineConfig;
  /** Undefined when the model has none: prompts are token ids then. */
  readonly tokenizer: Tokenizer | undefined;
  readonly chatTemplate: ChatTemplate | undefined;
  /** Sampling parameters that the model's generation_config.json recommends. They apply only when passed on. */
  readonly recommendedSamplingParams: SamplingParams;
  readonly #executor: Executor;
  readonly #seed: number | undefined;
  readonly #maxBeamWidth: number;
  #requests = 0;

  private constructor(parts: {
    engineDir: string;
    config: EngineConfig;
    assets: ReadonlyMap<string, string>;
    executor: Executor;
    tokenizer: Tokenizer | undefined;
    seed: number | undefined;
    maxBeamWidth: number;
  }) {
    this.engineDir = parts.engineDir;
    this.config = parts.config;
    this.tokenizer = parts.tokenizer;
    this.chatTemplate = parts.tokenizer === undefined ? undefined : templateOf(parts.assets, parts.engineDir);
    this.recommendedSamplingParams = recommended(parts.assets.get('generation_config.json'));
    this.#executor = parts.executor;
    this.#seed = parts.seed;
    this.#maxBeamWidth = parts.maxBeamWidth;
  }

  /**
   * Loads a model: a Hugging Face id, a checkpoint folder, a GGUF file or an engine folder. What is not an engine is built once and cached. Throws UsageError (options), HubError,
   * CheckpointError, ConfigError, EngineError or TargetError, each naming what is wrong and what to do.
   */
  static async load(model: string, options: LLMOptions = {}): Promise<LLM> {
    const resolved = resolveOptions(options);
    const { engineDir } = await prepareEngine(model, resolved);
    using engine = openEngine(engineDir);
    const { config, assets } = engine;
    const tokenizer = resolved.skipTokenizerInit ? undefined : Tokenizer.fromAssets(assets, engineDir);
    const {
      tokensPerBlock: _block,
      dtype: _dtype,
      maxAttentionWindow: _window,
      sinkTokenLength: _sinks,
      ...kvCacheConfig
    } = resolved.kvCacheConfig;
    const executor = await Executor.create({
      session: {
        engineDir,
        target: 'auto',
        kvCacheConfig,
        ...(resolved.device === undefined ? {} : { device: resolved.device }),
        ...(resolved.gpuMemory === undefined ? {} : { gpuMemory: resolved.gpuMemory }),
      },
      schedulerConfig: resolved.schedulerConfig,
      ...(resolved.speculativeConfig === undefined ? {} : { speculativeConfig: resolved.speculativeConfig }),
      ...(resolved.streamInterval === undefined ? {} : { streamInterval: resolved.streamInterval }),
      ...(resolved.disableJumpAhead === undefined ? {} : { disableJumpAhead: resolved.disableJumpAhead }),
      ...(resolved.disableOverlapScheduler === undefined
        ? {}
        : { disableOverlapScheduler: resolved.disableOverlapScheduler }),
      ...(resolved.batchedLogitsProcessor === undefined
        ? {}
        : { batchedLogitsProcessor: resolved.batchedLogitsProcessor }),
    });
    const { seed, maxBeamWidth } = resolved;
    return new LLM({ engineDir, config, assets, executor, tokenizer, seed, maxBeamWidth });
  }

  /** What the engine was built with: batch, tokens, sequence length, KV blocks. */
  get limits(): SessionLimits {
    return this.#executor.limits;
  }

  /** Tokens of a prompt as the model sees them. */
  encode(input: PromptInput): ResolvedPrompt {
    return resolvePrompt(input, {
      tokenizer: this.tokenizer,
      chatTemplate: this.chatTemplate,
      vocabSize: this.limits.vocabSize,
    });
  }

  /** Generates for one prompt, or for several at once, and waits for all of it. Throws RequestError when a prompt or parameter is refused: nothing runs then. */
  async generate(inputs: PromptInput, params?: SamplingParams, options?: GenerateOptions): Promise<RequestOutput>;
  async generate(
    inputs: readonly PromptInput[],
    params?: SamplingParams | readonly SamplingParams[],
    options?: GenerateOptions,
  ): Promise<RequestOutput[]>;
  async generate(
    inputs: PromptInput | readonly PromptInput[],
    params: SamplingParams | readonly SamplingParams[] = {},
    options: GenerateOptions = {},
  ): Promise<RequestOutput | RequestOutput[]> {
    if (!Array.isArray(inputs))
      return await collect(this.generateAsync(inputs as PromptInput, params as SamplingParams, options));
    const list = inputs as readonly PromptInput[];
    if (Array.isArray(params) && params.length !== list.length) {
      throw new RequestError('not one set of parameters a prompt', {
        where: 'params',
        expected: `one for all, or a list of ${list.length}`,
        got: `a list of ${params.length}`,
      });
    }
    const each = list.map((input, i) => ({
      input,
      params: (Array.isArray(params) ? params[i] : params) as SamplingParams,
    }));
    // All are checked before the first one runs.
    const checked = each.map(({ input, params: own }) => this.#check(input, own));
    const started = checked.map((request) => collect(this.#start(request, options)));
    try {
      return await Promise.all(started);
    } catch (error) {
      await Promise.allSettled(started);
      throw error;
    }
  }

  /** Generates for one prompt and yields what is new as it comes. Leaving the loop cancels the request. Throws RequestError at once when it is refused. */
  generateAsync(
    input: PromptInput,
    params: SamplingParams = {},
    options: GenerateOptions = {},
  ): AsyncGenerator<StreamedRequestOutput, void, undefined> {
    return this.#start(this.#check(input, params), options);
  }

  /** The newest steps, the open requests and the KV cache in numbers. */
  async statistics(): Promise<ExecutorStatistics> {
    return await this.#executor.statistics();
  }

  /** What happened to the blocks of the KV cache since the last call; needs `kvCacheConfig.eventBufferMaxSize`. For one reader. */
  async kvCacheEvents(): Promise<readonly KvCacheEvent[]> {
    return await this.#executor.kvCacheEvents();
  }

  /** The engine as it is now: what runs and waits, who holds which block, and the steps after the one of number `since`. Counts and places, no text. */
  async snapshot(since?: number): Promise<EngineSnapshot> {
    return await this.#executor.snapshot(since);
  }

  /** Times the launches of the next `numSteps` steps, or of fewer when work runs out; the order is that of the engine's plan. Resolves once there was work. */
  async profile(numSteps: number): Promise<Profile> {
    return await this.#executor.profile(numSteps);
  }

  #check(input: PromptInput, params: SamplingParams): { prompt: ResolvedPrompt; params: SamplingParams } {
    checkSamplingParams(params);
    if (params.useBeamSearch) this.#checkWidth(params);
    // In the parameters, as in TensorRT-LLM, or in the prompt, which has the last word.
    const text = typeof input === 'string' ? { prompt: input } : input;
    const added = params.addSpecialTokens !== undefined && 'prompt' in text;
    return { prompt: this.encode(added ? { addSpecialTokens: params.addSpecialTokens, ...text } : input), params };
  }

  #checkWidth({ bestOf, n = 1, beamWidthArray = [n] }: SamplingParams): void {
    const width = bestOf ?? Math.max(...beamWidthArray);
    if (width > this.#maxBeamWidth)
      throw new RequestError('more beams than the model was loaded for', {
        where: 'samplingParams.bestOf',
        expected: `at most maxBeamWidth = ${this.#maxBeamWidth}`,
        got: String(width),
      });
  }

  #start(
    { prompt, params }: { prompt: ResolvedPrompt; params: SamplingParams },
    { signal, priority, allottedTimeMs, cacheSalt, kvCacheRetentionConfig }: GenerateOptions,
  ): AsyncGenerator<StreamedRequestOutput, void, undefined> {
    const handle = this.#executor.enqueue({
      promptTokenIds: prompt.promptTokenIds,
      samplingParams: this.#inTokens(params),
      ...(signal === undefined ? {} : { signal }),
      ...(priority === undefined ? {} : { priority }),
      ...(allottedTimeMs === undefined ? {} : { allottedTimeMs }),
      ...(cacheSalt === undefined ? {} : { cacheSalt }),
      ...(kvCacheRetentionConfig === undefined ? {} : { kvCacheRetentionConfig }),
    });
    const named = new Set(params.stopTokenIds);
    const hiddenStops = new Set(this.tokenizer?.eosTokenIds.filter((id) => !named.has(id)));
    return streamRequest({ handle, prompt, params, tokenizer: this.tokenizer, hiddenStops });
  }

  /** The parameters as the executor takes them: texts become tokens, the model's own end tokens and the default seed are filled in. */
  #inTokens(params: SamplingParams): SamplingParams {
    const seed = params.seed ?? (this.#seed === undefined ? undefined : this.#seed + this.#requests++);
    const seeded = seed === undefined ? params : { ...params, seed };
    // Without a tokenizer the executor says that stop and bad texts need one.
    if (this.tokenizer === undefined) return seeded;
    const { stop: _watchedByTheStream, bad = [], ...rest } = seeded;
    const [endId, ...otherEnds] = this.tokenizer.eosTokenIds;
    const texts = typeof bad === 'string' ? [bad] : bad;
    return {
      ...rest,
      ...(endId === undefined ? {} : { endId: rest.endId ?? endId }),
      ...(otherEnds.length === 0 || rest.ignoreEos
        ? {}
        : { stopTokenIds: [...(rest.stopTokenIds ?? []), ...otherEnds] }),
      ...(texts.length === 0 ? {} : { badWords: [...(rest.badWords ?? []), ...badWords(this.tokenizer, texts)] }),
    };
  }

  /** Ends open requests with ExecutorError, then the engine. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#executor[Symbol.asyncDispose]();
  }
}

function templateOf(assets: ReadonlyMap<string, string>, label: string): ChatTemplate | undefined {
  const template = ChatTemplate.fromAssets(assets, label);
  return template.names.length === 0 ? undefined : template;
}

/** A text may be spelled by different tokens at the beginning of a word and inside one: both are forbidden. */
function badWords(tokenizer: Tokenizer, texts: readonly string[]): number[][] {
  return texts.flatMap((text) =>
    [text, ` ${text}`]
      .map((form) => tokenizer.encode(form, { addSpecialTokens: false }))
      .filter((ids) => ids.length > 0),
  );
}

/** What generation_config.json says of sampling, in our words; nothing when it says nothing or is damaged. */
function recommended(text: string | undefined): SamplingParams {
  if (text === undefined) return {};
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(text) as Record<string, unknown>;
  } catch {
    return {};
  }
  if (json.do_sample !== true) return {};
  const number = (name: string, key: keyof SamplingParams) =>
    typeof json[name] === 'number' ? { [key]: json[name] } : {};
  return {
    ...number('temperature', 'temperature'),
    ...number('top_k', 'topK'),
    ...number('top_p', 'topP'),
    ...number('min_p', 'minP'),
    ...number('repetition_penalty', 'repetitionPenalty'),
  };
}
