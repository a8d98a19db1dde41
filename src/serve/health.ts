// Whether the process lives, whether it can serve, whether it does serve, and what it is.

import type { Hono } from 'hono';
import { version } from '../base/version.ts';
import { ServeError } from './errors.ts';
import { generate } from './generate.ts';
import type { Env, Services } from './http.ts';

/** Where a server is in its life. */
export interface Lifecycle {
  /** True from the first signal to end: requests in hand are finished, new ones turned away. */
  readonly draining: boolean;
}

export function addHealth(app: Hono<Env>, { registry }: Services, lifecycle: Lifecycle): void {
  const started = Date.now();
  const states = () => Object.fromEntries(registry.models.map(({ name, state }) => [name, state]));
  // Liveness: the event loop answers.
  app.get('/health', (c) => c.body(null, 200));
  // Readiness: send requests here, or do not.
  app.get('/health/ready', (c) => {
    const ready = registry.ready && !lifecycle.draining;
    return c.json({ ready, draining: lifecycle.draining, models: states() }, ready ? 200 : 503);
  });
  // One token through each engine.
  app.get('/health_generate', async (c) => {
    const scope = c.get('scope');
    for (const model of registry.models.filter(({ state }) => state !== 'idle')) {
      const stream = generate({
        model,
        input: { promptTokenIds: [Math.min(1, model.llm.limits.vocabSize - 1)] },
        params: { maxTokens: 1, temperature: 0, ignoreEos: true },
        signal: AbortSignal.any([scope.signal, AbortSignal.timeout(30_000)]),
        priority: 1,
      });
      let tokens = 0;
      for await (const { outputs } of stream) tokens += outputs[0]?.tokenIdsDelta.length ?? 0;
      if (tokens === 0) throw new ServeError('the engine gave no token', { status: 503, code: 'engine_unavailable' });
    }
    return c.body(null, 200);
  });
  app.get('/version', (c) => c.json({ version }));
  app.get('/server_info', (c) =>
    c.json({
      server: 'typert',
      version,
      uptime_seconds: Math.round((Date.now() - started) / 1000),
      models: registry.models.map((model) => ({
        name: model.name,
        state: model.state,
        open_requests: model.numOpen,
        ...(model.state === 'ready'
          ? {
              architecture: model.llm.config.pretrained_config.architecture,
              build_config: model.llm.config.build_config,
              limits: model.llm.limits,
            }
          : {}),
      })),
    }),
  );
}
