// Entry of the engine's worker thread.
import { parentPort, workerData } from 'node:worker_threads';
import { openSession } from '../session/open.ts';
import type { EngineThreadOptions } from './protocol.ts';
import { serveEngine } from './serve-engine.ts';

if (parentPort !== null) {
  const port = parentPort;
  await serveEngine(
    {
      post: (message, transfer) => port.postMessage(message, [...transfer]),
      listen: (receive) => port.on('message', receive),
      // Nothing keeps the thread alive any more: it ends by itself.
      close: () => port.close(),
    },
    workerData as EngineThreadOptions,
    openSession,
  );
}
