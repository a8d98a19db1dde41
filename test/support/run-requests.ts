// Requests run to their end on an engine in this thread.
import type { SamplingParams } from '../../src/run/decode/sampling-params.ts';
import { Engine, type EngineOptions } from '../../src/run/executor/engine.ts';
import { RequestHandle } from '../../src/run/executor/handle.ts';
import type { Result } from '../../src/run/executor/outputs.ts';
import { checkRequest } from '../../src/run/executor/request.ts';
import type { Session } from '../../src/run/session/batch.ts';

export interface TestRequest {
  readonly promptTokenIds: readonly number[];
  readonly samplingParams: SamplingParams;
  /** Step before which it arrives; default 0. */
  readonly arrival?: number;
}

/** The results, in the order of the requests, and the engine that made them. */
export async function runRequests(
  session: Session,
  requests: readonly TestRequest[],
  options: EngineOptions = {},
  afterStep: (engine: Engine) => void = () => {},
): Promise<{ results: Result[]; engine: Engine }> {
  const handles = new Map<number, RequestHandle>();
  const engine = new Engine(session, options, (updates) => {
    for (const update of updates) {
      if ('error' in update) handles.get(update.requestId)!.fail(update.error);
      else handles.get(update.response.requestId)!.push(update.response);
    }
  });
  const nobody = { cancel() {}, finish() {}, settled() {} };
  const last = Math.max(...requests.map(({ arrival = 0 }) => arrival));
  let busy = true;
  for (let step = 0; busy || step <= last; step++) {
    requests.forEach(({ arrival = 0, ...request }, requestId) => {
      if (arrival !== step) return;
      const { params, ...checked } = checkRequest(request, session.limits);
      const data = { requestId, ...checked, params: { ...params, seed: params.seed ?? 0n }, arrivalTime: 0 };
      handles.set(requestId, new RequestHandle(data, nobody));
      engine.post({ type: 'enqueue', request: data });
    });
    busy = await engine.step();
    afterStep(engine);
  }
  return { results: await Promise.all(requests.map((_, id) => handles.get(id)!.result())), engine };
}
