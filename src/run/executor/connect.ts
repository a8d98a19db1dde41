// Two lines to an engine: in a worker thread, as always, and in the caller's thread, for tests and for debugging an engine step by step.
import { MessageChannel, Worker } from 'node:worker_threads';
import { ExecutorError } from '../../base/errors.ts';
import type { Connect, FromEngine, ToEngine } from './protocol.ts';
import { type OpenSession, serveEngine } from './serve-engine.ts';

/** An engine in a worker thread. `entry` is the built worker beside this file. */
export function connectWorker(entry: URL = new URL('./worker.js', import.meta.url)): Connect {
  return (options) => {
    const worker = new Worker(entry, { workerData: options, name: 'typert engine' });
    let failure: Error | undefined;
    return {
      post: (message) => worker.postMessage(message),
      listen: ({ message, gone }) => {
        worker.on('message', (received: FromEngine) => message(received));
        worker.on('messageerror', (error) => {
          failure = error;
          void worker.terminate();
        });
        worker.on('error', (error: Error) => {
          failure = error;
        });
        worker.on('exit', (code) => {
          const died =
            failure === undefined && code === 0
              ? undefined
              : new ExecutorError('the engine thread died', {
                  got: failure?.message ?? `exit code ${code}`,
                  cause: failure,
                });
          gone(died);
        });
      },
      hold: (wanted) => (wanted ? worker.ref() : worker.unref()),
      terminate: async () => {
        await worker.terminate();
      },
    };
  };
}

/** An engine in this thread, behind a message channel: messages are cloned as they are for a worker. */
export function connectInThread(openSession: OpenSession): Connect {
  return (options) => {
    const { port1: near, port2: far } = new MessageChannel();
    void serveEngine(
      {
        post: (message, transfer) => far.postMessage(message, [...transfer]),
        listen: (receive) => far.on('message', (message: ToEngine) => receive(message)),
        close: () => far.close(),
      },
      options,
      openSession,
    );
    return {
      post: (message) => near.postMessage(message),
      listen: ({ message, gone }) => {
        near.on('message', (received: FromEngine) => message(received));
        near.on('close', () => gone(undefined));
      },
      hold: (wanted) => (wanted ? near.ref() : near.unref()),
      terminate: async () => near.close(),
    };
  };
}
