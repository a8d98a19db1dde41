// What the executor and its engine say to each other, across a thread or not: plain data, and a port to send it through.
import type { SerializedError } from '../../base/errors.ts';
import type { GuidedDecodingConfig } from '../decode/guided.ts';
import type { KvCacheEvent } from '../kv/events.ts';
import type { SessionLimits } from '../session/batch.ts';
import type { SessionOptions } from '../session/options.ts';
import type { EngineEvent, EngineOptions } from './engine.ts';
import type { Response } from './outputs.ts';
import type { Profile } from './profile.ts';
import type { EngineSnapshot } from './snapshot.ts';
import type { ExecutorStatistics } from './statistics.ts';
import type { BatchedLogitsProcessor, ProcessedRow, ProcessorRow } from './user-processors.ts';

/** Options of `Executor.create`. */
export interface ExecutorOptions extends EngineOptions {
  readonly session: SessionOptions;
  /** Requests open at once at most; default 100 000. */
  readonly maxQueueSize?: number;
  /** Tokens of a request that go out together; its first goes at once. More than 1 takes work from whoever reads many streams. Default 1. */
  readonly streamInterval?: number;
  /** The vocabulary that grammars are about; default: that of the tokenizer beside the engine. */
  readonly guidedDecodingConfig?: GuidedDecodingConfig;
  /** Changes the logits of requests with `applyBatchedLogitsProcessor`, all rows of a step at once, in the caller's thread. */
  readonly batchedLogitsProcessor?: BatchedLogitsProcessor;
}

/** The options that the engine's thread gets: plain data. */
export type EngineThreadOptions = Omit<ExecutorOptions, 'batchedLogitsProcessor'>;

/** What can be asked of the engine, and the answers. */
export interface Answers {
  readonly statistics: ExecutorStatistics;
  readonly kvCacheEvents: readonly KvCacheEvent[];
  readonly snapshot: EngineSnapshot;
  readonly profile: Profile;
}

export type Question =
  | { readonly about: 'statistics' | 'kvCacheEvents' }
  /** With the steps after the one of number `since`. */
  | { readonly about: 'snapshot'; readonly since: number }
  | { readonly about: 'profile'; readonly numSteps: number };

export type ToEngine =
  | EngineEvent
  | { readonly type: 'ask'; readonly call: number; readonly question: Question }
  /** What the user's processors made of the rows of a 'process' message. */
  | { readonly type: 'processed'; readonly call: number; readonly rows: readonly ProcessedRow[] }
  /** An 'updates' message has arrived. */
  | { readonly type: 'ack' }
  | { readonly type: 'close' };

export type WireUpdate =
  | { readonly response: Response }
  | { readonly requestId: number; readonly error: SerializedError };

export type FromEngine =
  | { readonly type: 'ready'; readonly limits: SessionLimits }
  | { readonly type: 'updates'; readonly updates: readonly WireUpdate[] }
  | { readonly type: 'answer'; readonly call: number; readonly answer: Answers[keyof Answers] }
  /** Rows for the user's logits processors: the step waits for them. */
  | { readonly type: 'process'; readonly call: number; readonly rows: readonly ProcessorRow[] }
  /** The engine could not be opened, or failed: nothing follows. */
  | { readonly type: 'failed'; readonly error: SerializedError };

/** The engine's end of the line. */
export interface EnginePort {
  post(message: FromEngine, transfer: readonly ArrayBuffer[]): void;
  listen(receive: (message: ToEngine) => void): void;
  /** No more messages either way. */
  close(): void;
}

/** The executor's end of the line. */
export interface Connection {
  post(message: ToEngine): void;
  listen(listener: {
    message(message: FromEngine): void;
    /** The engine is gone: `error` is set when it was not asked to. */
    gone(error: Error | undefined): void;
  }): void;
  /** Whether the connection keeps the process alive: true while anyone waits for an answer. */
  hold(wanted: boolean): void;
  /** Ends an engine that does not end by itself. */
  terminate(): Promise<void>;
}

/** Opens a line to a new engine. */
export type Connect = (options: EngineThreadOptions) => Connection;
