// What the types of `typert/engine` and `typert/executor` promise. Checked by `npm run types`; never run.
import {
  type BuildConfig,
  buildEngine,
  type Checkpoint,
  type Compiled,
  compile,
  type Engine,
  findTarget,
  openCheckpoint,
  openEngine,
  type Pass,
  type Plan,
  type Target,
} from 'typert/engine';
import {
  Executor,
  type RequestHandle,
  type Response,
  type Result,
  type SchedulerConfig,
  type SessionLimits,
} from 'typert/executor';
import type { Graph } from 'typert/graph';
import { expectTypeOf } from 'vitest';

// Checkpoint → engine.
expectTypeOf(openCheckpoint).returns.resolves.toEqualTypeOf<Checkpoint>();
expectTypeOf<Checkpoint>().toExtend<Disposable>();
expectTypeOf(findTarget('auto')).toEqualTypeOf<Target>();
// @ts-expect-error: not a target
findTarget('gpu');
declare const checkpoint: Checkpoint;
const target = findTarget('reference');
expectTypeOf(compile(checkpoint, target)).toEqualTypeOf<Compiled>();
expectTypeOf<Compiled['stages']>().toEqualTypeOf<ReadonlyMap<string, Graph>>();
expectTypeOf(buildEngine({ checkpoint, target, engineDir: 'engine' })).resolves.toExtend<
  Compiled & { readonly bytes: number }
>();
({ dtype: 'auto', maxBatchSize: 4, tokensPerBlock: 16 }) satisfies BuildConfig;
// @ts-expect-error: no such setting
({ maxBeams: 4 }) satisfies BuildConfig;
expectTypeOf(openEngine('engine')).toEqualTypeOf<Engine>();
expectTypeOf<Engine['plan']>().toEqualTypeOf<Plan>();
({ name: 'nothing', does: 'changes nothing', run: (graph) => graph }) satisfies Pass;

// Engine → tokens.
expectTypeOf(Executor.create({ session: { engineDir: 'engine', target: 'auto' } })).resolves.toEqualTypeOf<Executor>();
// @ts-expect-error: not a policy
({ capacitySchedulerPolicy: 'fair' }) satisfies SchedulerConfig;
declare const executor: Executor;
expectTypeOf<Executor>().toExtend<AsyncDisposable>();
expectTypeOf(executor.limits).toEqualTypeOf<SessionLimits>();
expectTypeOf(
  executor.enqueue({ promptTokenIds: new Int32Array([1, 2]), samplingParams: { topK: 1 } }),
).toEqualTypeOf<RequestHandle>();
// @ts-expect-error: text needs the LLM's tokenizer
executor.enqueue({ prompt: 'Once' });
declare const handle: RequestHandle;
expectTypeOf(handle).toExtend<AsyncIterable<Response>>();
expectTypeOf(handle.result()).resolves.toEqualTypeOf<Result>();
expectTypeOf<Result['outputs'][number]['finishReason']>().toEqualTypeOf<'stop' | 'length' | 'timeout' | 'cancelled'>();
