// The executor: takes requests, gives their tokens back as they come. The engine computes in a worker thread; this side only checks, sends and hands out.

import { track } from '../../base/dispose.ts';
import { deserializeError, ExecutorError, RequestError } from '../../base/errors.ts';
import type { KvCacheEvent } from '../kv/events.ts';
import type { SessionLimits } from '../session/batch.ts';
import { connectWorker } from './connect.ts';
import { Calls, deferred } from './deferred.ts';
import { type HandleOwner, RequestHandle } from './handle.ts';
import { checkExecutorOptions } from './options.ts';
import type { Profile } from './profile.ts';
import type { Answers, Connect, Connection, ExecutorOptions, FromEngine, Question, WireUpdate } from './protocol.ts';
import { checkRequest, type RequestData, type RequestOptions } from './request.ts';
import type { EngineSnapshot } from './snapshot.ts';
import type { ExecutorStatistics } from './statistics.ts';
import { UserProcessors } from './user-processors.ts';

/** How long an engine may take to end before its thread is ended for it, milliseconds. */
const patience = 30_000;
/** Readers that are told of news before the event loop goes on. */
const slice = 16;

/** An engine that takes requests at any time and batches them in flight. */
export class Executor implements AsyncDisposable {
  /** What the engine was built with. */
  readonly limits: SessionLimits;
  readonly #connection: Connection;
  readonly #maxQueueSize: number;
  readonly #processors: UserProcessors;
  readonly #open = new Map<number, RequestHandle>();
  readonly #calls = new Calls<Answers[keyof Answers]>();
  readonly #gone: Promise<void>;
  readonly #owner: HandleOwner;
  /** Updates that nobody was told of yet, by message; of the first one `#told` are. */
  readonly #arrived: (readonly WireUpdate[])[] = [];
  #told = 0;
  #failure: Error | undefined;
  #nextId = 1;
  #disposed: Promise<void> | undefined;

  private constructor(line: Line, options: ExecutorOptions) {
    this.limits = line.limits;
    this.#connection = line.connection;
    this.#gone = line.gone;
    this.#processors = new UserProcessors(options.batchedLogitsProcessor, (requestId) => this.#open.get(requestId));
    this.#maxQueueSize = options.maxQueueSize ?? 100_000;
    this.#owner = {
      cancel: (requestId) => this.#connection.post({ type: 'cancel', requestId }),
      finish: (requestId, index) => this.#connection.post({ type: 'finish', requestId, index }),
      settled: (requestId) => {
        this.#open.delete(requestId);
        this.#hold();
      },
    };
    line.attach({
      message: (message) => this.#receive(message),
      gone: (error) => this.#fail(error ?? new ExecutorError('the engine ended')),
    });
    this.#hold();
  }

  /** Opens an engine in a worker thread. Rejects with UsageError for a bad option, or with what the session threw (EngineError, TargetError …). `connect` is where the engine runs. */
  static async create(options: ExecutorOptions, connect: Connect = connectWorker()): Promise<Executor> {
    checkExecutorOptions(options);
    const untrack = track('executor');
    try {
      const { batchedLogitsProcessor: _, ...plain } = options;
      const line = await openLine(connect(plain));
      void line.gone.then(untrack);
      return new Executor(line, options);
    } catch (error) {
      untrack();
      throw error;
    }
  }

  /**
   * Hands in a request. Throws RequestError when it can never be served (see `checkRequest`) or too many are open, ExecutorError when the engine is gone, and the
   * signal's reason when that is aborted already.
   */
  enqueue(options: RequestOptions): RequestHandle {
    if (this.#failure !== undefined) throw this.#failure;
    options.signal?.throwIfAborted();
    if (this.#open.size >= this.#maxQueueSize)
      throw new RequestError('too many requests are open', {
        expected: `at most maxQueueSize = ${this.#maxQueueSize}`,
        remedy: 'Wait for some to finish',
      });
    const { params, ...checked } = checkRequest(options, this.limits);
    const data: RequestData = {
      requestId: this.#nextId++,
      ...checked,
      params: { ...params, seed: params.seed ?? randomSeed() },
      arrivalTime: Date.now(),
    };
    const { logitsProcessor = [] } = options.samplingParams ?? {};
    const handle = new RequestHandle(data, this.#owner, [logitsProcessor].flat());
    this.#open.set(data.requestId, handle);
    this.#connection.post({ type: 'enqueue', request: data });
    this.#hold();
    this.#heed(options.signal, handle);
    return handle;
  }

  /** The newest steps, the open requests and the KV cache in numbers. */
  async statistics(): Promise<ExecutorStatistics> {
    return await this.#ask<'statistics'>({ about: 'statistics' });
  }

  /** What happened to the blocks of the KV cache since the last call; needs `kvCacheConfig.eventBufferMaxSize`. For one reader. */
  async kvCacheEvents(): Promise<readonly KvCacheEvent[]> {
    return await this.#ask<'kvCacheEvents'>({ about: 'kvCacheEvents' });
  }

  /** The engine as it is now: what runs and waits, who holds which block, and the steps after the one of number `since`. */
  async snapshot(since = -1): Promise<EngineSnapshot> {
    return await this.#ask<'snapshot'>({ about: 'snapshot', since });
  }

  /** Times the launches of the next `numSteps` steps: of fewer when the engine runs out of work, of none before it has some. Timed steps take longer. */
  async profile(numSteps: number): Promise<Profile> {
    return await this.#ask<'profile'>({ about: 'profile', numSteps });
  }

  /** Ends open requests with ExecutorError, then the engine. Idempotent. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#disposed ??= this.#close();
    return this.#disposed;
  }

  async #close(): Promise<void> {
    this.#fail(new ExecutorError('the executor was disposed'));
    this.#connection.hold(true);
    this.#connection.post({ type: 'close' });
    const timer = setTimeout(() => void this.#connection.terminate(), patience);
    await this.#gone;
    clearTimeout(timer);
  }

  async #ask<About extends keyof Answers>(question: Question & { about: About }): Promise<Answers[About]> {
    if (this.#failure !== undefined) throw this.#failure;
    const answer = this.#calls.open(this.#nextId);
    this.#connection.post({ type: 'ask', call: this.#nextId++, question });
    this.#hold();
    return (await answer) as Answers[About];
  }

  #receive(message: FromEngine): void {
    switch (message.type) {
      case 'updates':
        this.#arrived.push(message.updates);
        if (this.#arrived.length === 1) this.#handOut();
        break;
      case 'answer':
        this.#calls.answer(message.call, message.answer);
        this.#hold();
        break;
      case 'failed':
        this.#fail(deserializeError(message.error));
        break;
      case 'process':
        void this.#processors
          .process(message.rows)
          .then((rows) => this.#connection.post({ type: 'processed', call: message.call, rows }));
        break;
      case 'ready':
        break;
      default:
        message satisfies never;
    }
  }

  /** Hands out what has arrived, so many at a time: readers run as soon as they are told, and a step of a large batch must not hold the event loop for all of them. */
  #handOut(): void {
    const [updates] = this.#arrived;
    if (updates === undefined) return;
    this.#tell(updates.slice(this.#told, this.#told + slice));
    this.#told += slice;
    if (this.#told >= updates.length) {
      this.#told = 0;
      this.#arrived.shift();
      this.#connection.post({ type: 'ack' });
    }
    if (this.#arrived.length > 0) setImmediate(() => this.#handOut());
  }

  #tell(updates: readonly WireUpdate[]): void {
    for (const update of updates) {
      if ('response' in update) this.#open.get(update.response.requestId)?.push(update.response);
      else this.#open.get(update.requestId)?.fail(deserializeError(update.error));
    }
  }

  /** Nothing more will come: everyone who waits learns why. The first reason stays. */
  #fail(error: Error): void {
    this.#failure ??= error;
    // What came before the end counts.
    this.#tell(this.#arrived.splice(0).flat().slice(this.#told));
    this.#told = 0;
    for (const handle of [...this.#open.values()]) handle.fail(this.#failure);
    this.#calls.fail(this.#failure);
    this.#hold();
  }

  #heed(signal: AbortSignal | undefined, handle: RequestHandle): void {
    if (signal === undefined) return;
    const abort = (): void => {
      if (!this.#open.has(handle.requestId)) return;
      this.#owner.cancel(handle.requestId);
      handle.fail(signal.reason);
    };
    signal.addEventListener('abort', abort, { once: true });
    const forget = (): void => signal.removeEventListener('abort', abort);
    handle.ended.then(forget, forget);
  }

  /** The process stays alive while someone waits, and no longer. */
  #hold(): void {
    this.#connection.hold(this.#open.size + this.#calls.size > 0);
  }
}

function randomSeed(): bigint {
  return crypto.getRandomValues(new BigUint64Array(1))[0]!;
}

type Listener = Parameters<Connection['listen']>[0];

interface Line {
  readonly connection: Connection;
  readonly limits: SessionLimits;
  /** Resolves when the engine is gone. */
  readonly gone: Promise<void>;
  /** Who listens from now on. */
  readonly attach: (listener: Listener) => void;
}

/** Waits until the engine behind a connection is ready. */
function openLine(connection: Connection): Promise<Line> {
  const opened = deferred<Line>();
  const gone = deferred<void>();
  let failure: Error | undefined;
  let end: { readonly error: Error | undefined } | undefined;
  let listener: Listener | undefined;
  const attach = (next: Listener): void => {
    listener = next;
    if (end !== undefined) next.gone(end.error);
  };
  connection.listen({
    message: (message) => {
      if (listener !== undefined) listener.message(message);
      else if (message.type === 'ready')
        opened.resolve({ connection, limits: message.limits, gone: gone.promise, attach });
      else if (message.type === 'failed') failure = deserializeError(message.error);
    },
    gone: (error) => {
      end = { error };
      gone.resolve();
      opened.reject(failure ?? error ?? new ExecutorError('the engine ended before it was ready'));
      listener?.gone(error);
    },
  });
  connection.hold(true);
  return opened.promise;
}
