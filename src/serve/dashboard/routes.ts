// The routes behind the dashboard, under /v1/typert: the engine as it runs (a stream of events), the engine as it was built, and where a step's time goes.
import type { Hono } from 'hono';
import { z } from 'zod';
import { openEngine } from '../../compile/engine/read.ts';
import { memoryReport } from '../../compile/report.ts';
import type { StepsProfile } from '../../run/executor/profile.ts';
import { findTarget } from '../../targets/index.ts';
import { generate } from '../generate.ts';
import type { Lifecycle } from '../health.ts';
import { check, type Env, readJson, type Services } from '../http.ts';
import type { ServedLLM } from '../model.ts';
import type { Model } from '../registry.ts';
import { event, streamEvents } from '../sse.ts';
import type { EngineDescription, LiveEvent, ProfileAnswer, StepsTimes } from './api.ts';
import type { View, Watch } from './watch.ts';

const liveQuery = z.object({
  model: z.string().optional(),
  /** Milliseconds between events. */
  interval: z.coerce.number().int().min(50).max(60_000).default(250),
});

const profileBody = z.object({
  model: z.string().nullish(),
  /** Steps to time. */
  steps: z.int().min(1).max(1000).default(64),
});

async function now(model: Model, view: View, since: number): Promise<LiveEvent> {
  const { name, state, error } = model;
  if (state !== 'ready') {
    const reason = error instanceof Error ? { reason: error.message } : {};
    return { model: name, state, ...reason };
  }
  const { llm } = model;
  try {
    const { blocks, ...engine } = await llm.snapshot(since);
    return {
      model: name,
      state,
      numOpen: model.numOpen,
      engine: { ...engine, blocks: Buffer.from(blocks).toString('base64') },
      requests: view.take(),
    };
  } catch (failure) {
    model.report(failure, llm);
    return { model: name, state: 'failed', ...(failure instanceof Error ? { reason: failure.message } : {}) };
  }
}

interface Looking {
  readonly model: Model;
  readonly watch: Watch;
  readonly interval: number;
  readonly signal: AbortSignal;
  readonly lifecycle: Lifecycle;
}

async function* live({ model, watch, interval, signal, lifecycle }: Looking): AsyncGenerator<string, void, undefined> {
  using view = watch.open(model.name);
  let since = -1;
  let llm: ServedLLM | undefined;
  while (!signal.aborted && !lifecycle.draining) {
    const next = performance.now() + interval;
    // A new engine counts its steps from zero.
    if (model.state === 'ready' && model.llm !== llm) {
      llm = model.llm;
      since = -1;
    }
    const told = await now(model, view, since);
    if (told.state === 'ready') since = told.engine.iterations.at(-1)?.iter ?? since;
    yield event(told);
    await pause(next - performance.now(), signal);
  }
}

/** Resolves early when the signal is aborted. */
function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, Math.max(0, milliseconds));
    signal.addEventListener('abort', end, { once: true });
  });
}

function describe({ name, llm }: Model): EngineDescription {
  using engine = openEngine(llm.engineDir);
  const { config, plan, weightBytes } = engine;
  const target = findTarget(config.build_config.target);
  return { model: name, config, plan, memory: memoryReport(plan, target, weightBytes) };
}

function timesOf({ numSteps, numTokens, totalMs, forward, sample }: StepsProfile): StepsTimes {
  return { numSteps, numTokens, totalMs, forward: [...forward], sample: [...sample] };
}

/** Tokens of the prompt that an idle engine is given to be timed with. */
const ownPrompt = 64;

/** Times the engine at what it is doing; when that is nothing, at a request that is nobody's. */
async function profile(model: Model, steps: number, signal: AbortSignal): Promise<ProfileAnswer> {
  const { llm } = model;
  const { running, numWaiting } = await llm.snapshot();
  const load = running.length + numWaiting > 0 ? 'users' : 'own';
  const asked = llm.profile(steps);
  // A request of the users may end before its next step is timed: then nothing would ever come.
  const own = load === 'own' || (await Promise.race([asked, pause(1000, signal)])) === undefined;
  if (own) await runOwn(model, steps, signal);
  const { generation, context } = await asked;
  return { model: model.name, load, generation: timesOf(generation), context: timesOf(context) };
}

async function runOwn(model: Model, steps: number, signal: AbortSignal): Promise<void> {
  const { vocabSize, maxSeqLen } = model.llm.limits;
  const length = Math.min(ownPrompt, maxSeqLen >> 1);
  const promptTokenIds = Array.from({ length }, (_, i) => (i * 7919 + 1) % vocabSize);
  const maxTokens = Math.min(steps, maxSeqLen - length);
  const params = { maxTokens, temperature: 0, ignoreEos: true };
  // Nobody else's prompt begins in this salt.
  const cacheSalt = crypto.randomUUID();
  for await (const _ of generate({ model, input: { promptTokenIds }, params, signal, cacheSalt, priority: 1 }));
}

export function addDashboardApi(app: Hono<Env>, services: Services, watch: Watch, lifecycle: Lifecycle): void {
  const { registry } = services;
  app.get('/v1/typert/live', (c) => {
    const { model: name, interval } = check(liveQuery, c.req.query());
    const { signal, abort } = c.get('scope');
    return streamEvents(live({ model: registry.get(name), watch, interval, signal, lifecycle }), { abort });
  });
  app.get('/v1/typert/engine', (c) => c.json(describe(registry.get(c.req.query('model')))));
  app.post('/v1/typert/profile', async (c) => {
    const { model, steps } = await readJson(c, profileBody);
    return c.json(await profile(registry.get(model), steps, c.get('scope').signal));
  });
}
