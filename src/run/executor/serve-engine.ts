// An engine behind a port: opens the session, runs the loop, answers. The same in a worker thread and, for tests, in the caller's thread.
import { ExecutorError, serializeError } from '../../base/errors.ts';
import { openEngine } from '../../compile/engine/read.ts';
import { type GuidedDecodingConfig, GuideMaker } from '../decode/guided.ts';
import { vocabularyOf } from '../decode/vocabulary.ts';
import type { Session } from '../session/batch.ts';
import type { SessionOptions } from '../session/options.ts';
import { Calls } from './deferred.ts';
import { Engine } from './engine.ts';
import { Outbox } from './outbox.ts';
import type { Answers, EnginePort, EngineThreadOptions, Question, ToEngine } from './protocol.ts';
import type { AskProcessors, ProcessedRow } from './user-processors.ts';

export type OpenSession = (options: SessionOptions) => Promise<Session>;

/** Serves one engine until it is told to close or fails; closes the port at the end. Never throws: failures go through the port. */
export async function serveEngine(
  port: EnginePort,
  options: EngineThreadOptions,
  openSession: OpenSession,
): Promise<void> {
  try {
    await using session = await openSession(options.session);
    const outbox = new Outbox(
      (updates, transfer) => port.post({ type: 'updates', updates }, transfer),
      options.streamInterval,
    );
    const kvCacheConfig = options.session.kvCacheConfig ?? {};
    const questions = new Calls<readonly ProcessedRow[]>();
    let numQuestions = 0;
    const ask: AskProcessors = (rows) => {
      const call = ++numQuestions;
      port.post(
        { type: 'process', call, rows },
        rows.map(({ logits }) => logits.buffer as ArrayBuffer),
      );
      return questions.open(call);
    };
    const engine = new Engine(session, { kvCacheConfig, ...options }, (updates) => outbox.put(updates), {
      ask,
      guides: new GuideMaker(() => options.guidedDecodingConfig ?? readVocabulary(options, session)),
    });
    port.listen((message) => {
      if (message.type === 'processed') questions.answer(message.call, message.rows);
      else receive(message, engine, outbox, port);
      // Nobody answers any more.
      if (message.type === 'close') questions.fail(new ExecutorError('the executor was disposed'));
    });
    port.post({ type: 'ready', limits: session.limits }, []);
    await engine.run();
  } catch (error) {
    port.post({ type: 'failed', error: serializeError(error) }, []);
  } finally {
    port.close();
  }
}

/** The vocabulary of the tokenizer that came with the engine. */
function readVocabulary({ session: { engineDir } }: EngineThreadOptions, { limits }: Session): GuidedDecodingConfig {
  using engine = openEngine(engineDir);
  return vocabularyOf(engine.assets, limits.vocabSize);
}

async function answerTo(question: Question, engine: Engine): Promise<Answers[keyof Answers]> {
  switch (question.about) {
    case 'statistics':
      return engine.statistics();
    case 'kvCacheEvents':
      return engine.kvCacheEvents();
    case 'snapshot':
      return engine.snapshot(question.since);
    case 'profile':
      return await engine.profile(question.numSteps);
    default:
      return question satisfies never;
  }
}

function receive(
  message: Exclude<ToEngine, { type: 'processed' }>,
  engine: Engine,
  outbox: Outbox,
  port: EnginePort,
): void {
  switch (message.type) {
    case 'enqueue':
    case 'cancel':
    case 'finish':
      engine.post(message);
      break;
    case 'ack':
      outbox.acknowledge();
      break;
    case 'ask':
      // Answered within this turn, but for a profile, which takes some steps. None of them fails.
      void answerTo(message.question, engine).then((answer) =>
        port.post({ type: 'answer', call: message.call, answer }, []),
      );
      break;
    case 'close':
      engine.stop();
      break;
    default:
      message satisfies never;
  }
}
