// An engine behind a port: opens the session, runs the loop, answers. The same in a worker thread and, for tests, in the caller's thread.
import { serializeError } from '../../base/errors.ts';
import type { Session } from '../session/batch.ts';
import type { SessionOptions } from '../session/options.ts';
import { Engine } from './engine.ts';
import { Outbox } from './outbox.ts';
import type { EnginePort, ExecutorOptions, ToEngine } from './protocol.ts';

export type OpenSession = (options: SessionOptions) => Promise<Session>;

/** Serves one engine until it is told to close or fails; closes the port at the end. Never throws: failures go through the port. */
export async function serveEngine(port: EnginePort, options: ExecutorOptions, openSession: OpenSession): Promise<void> {
  try {
    await using session = await openSession(options.session);
    const outbox = new Outbox((updates, transfer) => port.post({ type: 'updates', updates }, transfer));
    const engine = new Engine(session, options, (updates) => outbox.put(updates));
    port.listen((message) => receive(message, engine, outbox, port));
    port.post({ type: 'ready', limits: session.limits }, []);
    await engine.run();
  } catch (error) {
    port.post({ type: 'failed', error: serializeError(error) }, []);
  } finally {
    port.close();
  }
}

function receive(message: ToEngine, engine: Engine, outbox: Outbox, port: EnginePort): void {
  switch (message.type) {
    case 'enqueue':
    case 'cancel':
    case 'finish':
      engine.post(message);
      break;
    case 'ack':
      outbox.acknowledge();
      break;
    case 'statistics':
      port.post({ type: 'statistics', call: message.call, statistics: engine.statistics() }, []);
      break;
    case 'close':
      engine.stop();
      break;
    default:
      message satisfies never;
  }
}
