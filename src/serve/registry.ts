// The models of a server, by name: loaded, watched, restarted when their engine dies, unloaded. A request gets a lease on a model, or is told why not.

import { ExecutorError } from '../base/errors.ts';
import type { ExecutorStatistics } from '../run/executor/statistics.ts';
import { ServeError } from './errors.ts';
import type { ModelSource, ModelState, Observer, ServedLLM } from './model.ts';
import { type ChatTraits, findTraits } from './traits.ts';

/** Options of a `Registry`. */
export interface RegistryOptions {
  /** Requests that may wait for a place in a model's batch; more are answered 429. Default 1024. */
  readonly maxQueueSize?: number;
  readonly observer?: Observer;
  /** How often an engine is looked after, milliseconds; default 1000. */
  readonly watchInterval?: number;
  /** Waits before an engine is opened again, milliseconds; the last one repeats. */
  readonly restartDelays?: readonly number[];
}

/** A request's right to use a model. `release` is idempotent. */
export interface Lease {
  readonly llm: ServedLLM;
  readonly release: () => void;
}

/** One model by name. */
export class Model {
  readonly name: string;
  /** Seconds since the epoch. */
  readonly created = Math.floor(Date.now() / 1000);
  readonly #source: ModelSource;
  readonly #options: RegistryOptions;
  #state: ModelState = 'idle';
  #llm: ServedLLM | undefined;
  #traits: ChatTraits | undefined;
  #error: unknown;
  readonly #open = new Set<(reason: unknown) => void>();
  #attempts = 0;
  #loading: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #watching = false;

  constructor(source: ModelSource, options: RegistryOptions) {
    this.name = source.name;
    this.#source = source;
    this.#options = options;
  }

  get state(): ModelState {
    return this.#state;
  }

  /** Why it is not ready. */
  get error(): unknown {
    return this.#error;
  }

  /** Requests in hand. */
  get numOpen(): number {
    return this.#open.size;
  }

  /** The loaded model; throws 503 when it is not ready. */
  get llm(): ServedLLM {
    if (this.#state === 'ready' && this.#llm !== undefined) return this.#llm;
    throw new ServeError(`the model '${this.name}' is not ready`, {
      status: 503,
      code: 'model_not_ready',
      got: this.#state,
      retryAfter: 1,
    });
  }

  /**
   * How its answers are read.
   * @internal
   */
  get traits(): ChatTraits {
    const { llm } = this;
    this.#traits ??= findTraits(llm, this.#source);
    return this.#traits;
  }

  /** Loads it unless it is loaded. Rejects with what loading threw. */
  async load(): Promise<void> {
    if (this.#state === 'ready') return;
    this.#loading ??= this.#open_().finally(() => {
      this.#loading = undefined;
    });
    await this.#loading;
  }

  async #open_(): Promise<void> {
    clearTimeout(this.#timer);
    this.#set('loading', undefined);
    try {
      this.#llm = await this.#source.load();
      this.#traits = undefined;
      // The parsers are found now, so that a wrong choice is an error at start and not at the first request.
      this.#traits = findTraits(this.#llm, this.#source);
    } catch (error) {
      this.#set('failed', error);
      throw error;
    }
    this.#attempts = 0;
    this.#set('ready', undefined);
    this.#watch();
  }

  /** Ends it: open requests get 503. It can be loaded again. */
  async unload(): Promise<void> {
    await this.#loading?.catch(() => {});
    clearTimeout(this.#timer);
    const llm = this.#llm;
    this.#llm = undefined;
    this.#set('idle', undefined);
    if (this.#source.owned !== false) await llm?.[Symbol.asyncDispose]();
  }

  /**
   * Takes a place for a request, which `cancel` ends. Throws 503 when the model is not ready and 429 when too many wait.
   * @internal
   */
  acquire(cancel: (reason: unknown) => void): Lease {
    const { llm } = this;
    const limit = llm.limits.maxBatchSize + (this.#options.maxQueueSize ?? 1024);
    if (this.#open.size >= limit)
      throw new ServeError('too many requests are open', {
        status: 429,
        code: 'queue_full',
        expected: `at most ${limit} (batch and queue)`,
        remedy: 'Try again later',
        retryAfter: 1,
      });
    this.#open.add(cancel);
    return {
      llm,
      release: () => {
        this.#open.delete(cancel);
      },
    };
  }

  /** Ends all requests in hand. */
  cancelAll(reason: unknown): void {
    for (const cancel of [...this.#open]) cancel(reason);
  }

  /** Told of every error that a request met: the engine's death makes the model failed, and brings it back. */
  report(error: unknown, llm: ServedLLM): void {
    if (!(error instanceof ExecutorError) || llm !== this.#llm || this.#state !== 'ready') return;
    this.#set('failed', error);
    if (this.#source.owned === false) return;
    this.#llm = undefined;
    void Promise.resolve(llm[Symbol.asyncDispose]()).catch(() => {});
    this.#restart();
  }

  #restart(): void {
    const delays = this.#options.restartDelays ?? [0, 1000, 5000, 30_000];
    const delay = delays[Math.min(this.#attempts++, delays.length - 1)] ?? 1000;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (this.#state !== 'failed') return;
      this.load().catch(() => this.#restart());
    }, delay);
    // A server's socket keeps the process alive; a model that waits does not.
    this.#timer.unref();
  }

  #watch(): void {
    const llm = this.#llm;
    if (llm === undefined) return;
    this.#timer = setTimeout(() => {
      void this.look().finally(() => {
        if (this.#llm === llm && this.#state === 'ready') this.#watch();
      });
    }, this.#options.watchInterval ?? 1000);
    this.#timer.unref();
  }

  /** Asks the engine for its numbers, which also shows whether it lives. */
  async look(): Promise<ExecutorStatistics | undefined> {
    const llm = this.#llm;
    if (llm === undefined || this.#watching) return undefined;
    this.#watching = true;
    try {
      const statistics = await llm.statistics();
      this.#options.observer?.statistics?.(this.name, statistics);
      return statistics;
    } catch (error) {
      this.report(error, llm);
      return undefined;
    } finally {
      this.#watching = false;
    }
  }

  #set(state: ModelState, error: unknown): void {
    this.#state = state;
    this.#error = error;
    this.#options.observer?.stateChanged?.(this.name, state, error);
  }
}

/** All models of a server. */
export class Registry implements AsyncDisposable {
  readonly #models = new Map<string, Model>();

  constructor(sources: readonly ModelSource[], options: RegistryOptions = {}) {
    for (const source of sources) this.#models.set(source.name, new Model(source, options));
  }

  get models(): readonly Model[] {
    return [...this.#models.values()];
  }

  /** True when every model that was meant to be loaded is. */
  get ready(): boolean {
    const meant = this.models.filter(({ state }) => state !== 'idle');
    return meant.length > 0 && meant.every(({ state }) => state === 'ready');
  }

  /** Loads all of them; rejects with the first failure. */
  async load(): Promise<void> {
    for (const model of this.models) await model.load();
  }

  /** The model of this name, the first one when none is named. Throws 404. */
  get(name?: string | null): Model {
    const model = name === undefined || name === null ? this.models[0] : this.#models.get(name);
    if (model !== undefined) return model;
    throw new ServeError(`the model '${name ?? ''}' does not exist`, {
      status: 404,
      code: 'model_not_found',
      param: 'model',
      expected: [...this.#models.keys()].join(' or '),
    });
  }

  /** Ends all models. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.models.map((model) => model.unload()));
  }
}
