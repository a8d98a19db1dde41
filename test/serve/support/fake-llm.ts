// A model without an engine, for tests of the server's own logic: it answers with a given text, word by word, as fast or slow as asked, and counts what happens to its requests.
import { ExecutorError, RequestError, type StreamedCompletionOutput, type StreamedRequestOutput } from 'typert';
import type { ServedLLM } from 'typert/serve';

export interface FakeOptions {
  /** The answer to a prompt. Default: 'one two three'. */
  readonly answer?: (prompt: string) => string;
  /** Says this again and again until maxTokens, instead of an answer. */
  readonly forever?: string;
  /** Milliseconds before each token. */
  readonly delay?: number;
  /** Tokens besides words that the vocabulary knows, e.g. '<tool_call>'. */
  readonly special?: readonly string[];
  readonly showsTools?: boolean;
  readonly maxBatchSize?: number;
  readonly maxSeqLen?: number;
}

/** Words with the space before them, single characters where there is none. */
function split(text: string): string[] {
  return text.match(/\s*\S{1,4}|\s+$/g) ?? [];
}

export class FakeLLM implements ServedLLM {
  readonly #options: FakeOptions;
  readonly #words: string[] = ['<end>'];
  readonly config: ServedLLM['config'];
  readonly limits: ServedLLM['limits'];
  readonly recommendedSamplingParams = {};
  readonly params: unknown[] = [];
  readonly prompts: string[] = [];
  numStarted = 0;
  numOpen = 0;
  numCancelled = 0;
  numYielded = 0;
  disposed = 0;
  dead: Error | undefined;
  #dying: ((error: Error) => void)[] = [];

  constructor(options: FakeOptions = {}) {
    this.#options = options;
    this.#words.push(...(options.special ?? []));
    this.config = {
      pretrained_config: { architecture: 'FakeForCausalLM', vocab_size: 1000 },
      build_config: {} as ServedLLM['config']['build_config'],
    };
    const maxSeqLen = options.maxSeqLen ?? 1000;
    this.limits = {
      maxBatchSize: options.maxBatchSize ?? 4,
      maxNumTokens: 64,
      maxNumLogits: 64,
      maxSeqLen,
      tokensPerBlock: 32,
      maxBlocksPerSequence: Math.ceil(maxSeqLen / 32),
      numBlocks: 64,
      vocabSize: 1000,
    };
  }

  readonly tokenizer = {
    eosTokenIds: [0],
    encode: (text: string) => split(text).map((word) => this.#id(word)),
    decode: (ids: Iterable<number>, options: { skipSpecialTokens?: boolean } = {}) =>
      Array.from(ids, (id) => (id === 0 && (options.skipSpecialTokens ?? true) ? '' : (this.#words[id] ?? ''))).join(
        '',
      ),
    idToToken: (id: number) => this.#words[id],
    tokenToId: (token: string) => {
      const id = this.#words.indexOf(token);
      return id < 0 ? undefined : id;
    },
    isSpecial: (id: number) => id === 0,
  };

  readonly chatTemplate = {
    names: ['default'],
    render: (
      messages: readonly { role: string; content?: unknown }[],
      options: { tools?: readonly unknown[] } = {},
    ) => {
      const tools = this.#options.showsTools && options.tools ? `tools:${JSON.stringify(options.tools)} ` : '';
      return `${tools}${messages.map(({ role, content }) => `${role}: ${String(content)}`).join(' ')} assistant:`;
    },
  };

  #id(word: string): number {
    const known = this.#words.indexOf(word);
    return known >= 0 ? known : this.#words.push(word) - 1;
  }

  encode(input: Parameters<ServedLLM['encode']>[0]) {
    if (typeof input === 'string') return { prompt: input, promptTokenIds: this.tokenizer.encode(input) };
    if ('promptTokenIds' in input) return { prompt: null, promptTokenIds: input.promptTokenIds };
    const text =
      'prompt' in input
        ? input.prompt
        : this.chatTemplate.render(input.messages, input.tools === undefined ? {} : { tools: input.tools });
    return { prompt: text, promptTokenIds: this.tokenizer.encode(text) };
  }

  /** The engine dies: open requests learn it. */
  die(): void {
    this.dead = new ExecutorError('the engine thread died');
    for (const tell of this.#dying) tell(this.dead);
  }

  generateAsync(...[input, params = {}, options = {}]: Parameters<ServedLLM['generateAsync']>) {
    if (this.dead !== undefined) throw this.dead;
    const prompt = this.encode(input);
    this.params.push(params);
    this.prompts.push(this.tokenizer.decode(prompt.promptTokenIds));
    if ((params.topP ?? 1) > 1)
      throw new RequestError('not acceptable', {
        where: 'samplingParams.topP',
        expected: 'a number from 0 to 1',
        got: String(params.topP),
      });
    if (prompt.promptTokenIds.length >= this.limits.maxSeqLen)
      throw new RequestError('the prompt is too long', { where: 'promptTokenIds' });
    this.numStarted++;
    this.numOpen++;
    const { signal } = options;
    let over = false;
    const end = (cancelled: boolean) => {
      if (over) return;
      over = true;
      this.numOpen--;
      if (cancelled) this.numCancelled++;
    };
    signal?.addEventListener('abort', () => end(true), { once: true });
    return this.#stream(prompt, params, signal, end);
  }

  async *#stream(
    prompt: ReturnType<FakeLLM['encode']>,
    params: NonNullable<Parameters<ServedLLM['generateAsync']>[1]>,
    signal: AbortSignal | undefined,
    end: (cancelled: boolean) => void,
  ): AsyncGenerator<StreamedRequestOutput, void, undefined> {
    const { forever } = this.#options;
    const most = params.maxTokens ?? 32;
    const text = (this.#options.answer ?? (() => 'one two three'))(this.tokenizer.decode(prompt.promptTokenIds));
    const words =
      forever === undefined
        ? [...split(text).map((word) => this.#id(word)), 0].slice(0, most)
        : new Array<number>(most).fill(this.#id(forever));
    const ids: number[] = [];
    let [finished, said] = [false, ''];
    try {
      for (const id of words) {
        await this.#wait(signal);
        ids.push(id);
        const delta = this.tokenizer.decode([id], { skipSpecialTokens: params.skipSpecialTokens ?? true });
        if (forever === undefined) said += delta;
        finished = ids.length === words.length;
        const outputs = Array.from(
          { length: params.n ?? 1 },
          (_, index): StreamedCompletionOutput => ({
            index,
            text: said,
            textDelta: delta,
            tokenIds: forever === undefined ? [...ids] : [],
            tokenIdsDelta: [id],
            cumulativeLogprob: -ids.length,
            ...(params.logprobs === undefined
              ? {}
              : { logprobs: ids.map((one) => new Map([[one, { logprob: -1, rank: 1 }]])) }),
            finishReason: finished ? (id === 0 ? 'stop' : 'length') : null,
            stopReason: null,
          }),
        );
        this.numYielded++;
        yield {
          requestId: 1,
          prompt: prompt.prompt,
          promptTokenIds: prompt.promptTokenIds,
          finished,
          outputs,
          textDelta: delta,
        };
      }
    } finally {
      end(!finished);
    }
  }

  #wait(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.dead !== undefined) return reject(this.dead);
      if (signal?.aborted) return reject(signal.reason);
      const over = new AbortController();
      const timer = setTimeout(() => {
        over.abort();
        resolve();
      }, this.#options.delay ?? 0);
      const fail = (error: unknown) => {
        over.abort();
        clearTimeout(timer);
        reject(error);
      };
      this.#dying.push(fail);
      signal?.addEventListener('abort', () => fail(signal.reason), { once: true, signal: over.signal });
    });
  }

  readonly engineDir = '';

  async snapshot(): ReturnType<ServedLLM['snapshot']> {
    if (this.dead !== undefined) throw this.dead;
    const { kvCacheStats, numPreemptions } = await this.statistics();
    return {
      time: Date.now(),
      step: undefined,
      running: [],
      waiting: [],
      numWaiting: 0,
      blocks: new Uint8Array(64),
      kvCacheStats,
      numPreemptions,
      iterations: [],
    };
  }

  async profile(): ReturnType<ServedLLM['profile']> {
    const none = { numSteps: 0, numTokens: 0, totalMs: 0, forward: new Float64Array(), sample: new Float64Array() };
    return { generation: none, context: none };
  }

  async statistics(): ReturnType<ServedLLM['statistics']> {
    if (this.dead !== undefined) throw this.dead;
    return {
      iterations: [],
      requests: [],
      kvCacheStats: {
        maxNumBlocks: 64,
        freeNumBlocks: 64,
        usedNumBlocks: 0,
        tokensPerBlock: 32,
        allocTotalBlocks: 0,
        allocNewBlocks: 0,
        reusedBlocks: 0,
        missedBlocks: 0,
        cacheHitRate: 0,
      },
      numActiveRequests: this.numOpen,
      numQueuedRequests: 0,
      numCompletedRequests: 0,
      numPreemptions: 0,
      numIterations: 0,
      cpuMemUsage: 0,
    } as unknown as Awaited<ReturnType<ServedLLM['statistics']>>;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.disposed++;
  }
}
