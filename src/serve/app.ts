// The server as one fetch handler: request in, response out. It knows no socket; `listen.ts` gives it one, tests and other servers call it as it is.

import { Hono } from 'hono';
import { cors } from 'hono/cors';
import type { Logger } from 'pino';
import { addAnthropic } from './anthropic/messages.ts';
import { requireApiKey } from './auth.ts';
import { addDashboard } from './dashboard/assets.ts';
import { addDashboardApi } from './dashboard/routes.ts';
import { Watch } from './dashboard/watch.ts';
import { errorBodyOf, ServeError, toHttpError } from './errors.ts';
import { addHealth, type Lifecycle } from './health.ts';
import { type Ctx, type Env, makeId, type Scope } from './http.ts';
import { Inference } from './kserve/infer.ts';
import { addKserve } from './kserve/routes.ts';
import { Metrics } from './metrics/metrics.ts';
import { addMetrics } from './metrics/routes.ts';
import { allOf, type Observer } from './model.ts';
import { addOllama } from './ollama/routes.ts';
import { addChat } from './openai/chat.ts';
import { addCompletions } from './openai/completions.ts';
import { addModels } from './openai/models.ts';
import { addResponses } from './openai/responses.ts';
import { addOpenApi } from './openapi.ts';
import type { Registry } from './registry.ts';
import type { OtlpExporter } from './tracing/otlp.ts';
import { operationOf, Trace } from './tracing/trace.ts';

/** Options of `createApp`. */
export interface AppOptions {
  readonly registry: Registry;
  /** Any of these opens the server; none: it is open to all. */
  readonly apiKeys?: readonly string[];
  /** Origins that browsers may call from; '*' for all. Default: none. */
  readonly corsOrigins?: readonly string[];
  /** Bytes of a request's body; more is answered 413. Default 32 MiB. */
  readonly maxBodySize?: number;
  readonly logger?: Logger;
  readonly metrics?: Metrics;
  /** Whether the server is ending. */
  readonly lifecycle?: Lifecycle;
  /** What the dashboard is told of requests; shared with the gRPC service. */
  readonly watch?: Watch;
  /**
   * Shared with the gRPC service, so that one can stop what the other began.
   * @internal
   */
  readonly inference?: Inference;
  /** Where spans of requests go; default: nowhere. */
  readonly tracing?: OtlpExporter;
}

const requestId = /^[\w.:-]{1,128}$/;

/** What a request is to its trace. Probes and scrapes have none. */
function traceOf(c: Ctx, exporter: OtlpExporter | undefined): Trace | undefined {
  if (exporter === undefined || c.req.method !== 'POST') return undefined;
  const { method, path } = c.req;
  const header = (name: string): string | undefined => c.req.header(name);
  return new Trace(exporter, {
    name: `${method} ${path}`,
    operation: operationOf(path),
    traceparent: header('traceparent'),
    tracestate: header('tracestate'),
    attributes: {
      'http.request.method': method,
      'url.path': path,
      'user_agent.original': header('user-agent'),
    },
  });
}

function scopeOf(c: Ctx, options: AppOptions, observers: readonly Observer[]): Scope {
  const given = c.req.header('x-request-id');
  const clientSignal = c.req.raw.signal;
  const id = given !== undefined && requestId.test(given) ? given : makeId('req_');
  const controller = new AbortController();
  const { logger } = options;
  const log: Observer = {
    requestEnded: (facts) => {
      const { model, outcome, promptTokens, completionTokens, started, firstToken, ended } = facts;
      logger?.info(
        {
          requestId: id,
          model,
          outcome,
          promptTokens,
          completionTokens,
          ms: Math.round(ended - started),
          ...(firstToken === undefined ? {} : { firstTokenMs: Math.round(firstToken - started) }),
        },
        'generated',
      );
    },
  };
  return {
    id,
    signal: AbortSignal.any([controller.signal, clientSignal]),
    abort: (reason) => controller.abort(reason),
    observer: allOf([...observers, log]),
    maxBodySize: options.maxBodySize ?? 32 << 20,
  };
}

/** Builds the handler. */
export function createApp(options: AppOptions): Hono<Env> {
  const { registry, apiKeys = [], corsOrigins = [], logger } = options;
  const metrics = options.metrics ?? new Metrics();
  const watch = options.watch ?? new Watch();
  const lifecycle = options.lifecycle ?? { draining: false };
  const app = new Hono<Env>();
  app.use(async (c, next) => {
    const started = performance.now();
    const trace = traceOf(c, options.tracing);
    const scope = scopeOf(c, options, [metrics, watch, ...(trace === undefined ? [] : [trace])]);
    c.set('scope', scope);
    await next();
    const { status } = c.res;
    trace?.answered({ 'http.response.status_code': status }, status >= 500 ? `status ${status}` : undefined);
    c.res.headers.set('x-request-id', scope.id);
    c.res.headers.set('x-content-type-options', 'nosniff');
    const { method, path } = c.req;
    const level = path === '/metrics' || path.startsWith('/health') ? 'debug' : 'info';
    logger?.[level](
      { requestId: scope.id, method, path, status: c.res.status, ms: Math.round(performance.now() - started) },
      'request',
    );
  });
  if (corsOrigins.length > 0)
    app.use(
      cors({
        origin: corsOrigins.includes('*') ? '*' : [...corsOrigins],
        exposeHeaders: ['x-request-id', 'retry-after'],
        maxAge: 600,
      }),
    );
  if (apiKeys.length > 0) app.use(requireApiKey(apiKeys));
  app.use(async (c, next) => {
    if (lifecycle.draining && c.req.method === 'POST')
      throw new ServeError('the server is ending', { status: 503, code: 'shutting_down', retryAfter: 5 });
    await next();
  });
  app.onError((error, c) => {
    const facts = toHttpError(error);
    const scope = c.get('scope') as Scope | undefined;
    if (facts.status >= 500) logger?.error({ requestId: scope?.id, err: error }, 'failed');
    metrics.requestRefused(facts.status);
    const headers: Record<string, string> = { 'content-type': 'application/json; charset=utf-8' };
    if (facts.retryAfter !== undefined) headers['retry-after'] = String(facts.retryAfter);
    if (facts.status === 401) headers['www-authenticate'] = 'Bearer';
    return new Response(JSON.stringify(errorBodyOf(c.req.path)(facts)), { status: facts.status, headers });
  });
  app.notFound((c) => {
    throw new ServeError(`there is no ${c.req.method} ${c.req.path}`, { status: 404, code: 'unknown_url' });
  });
  const services = { registry, observer: metrics };
  addOpenApi(app);
  addHealth(app, services, lifecycle);
  addMetrics(app, services, metrics);
  addDashboardApi(app, services, watch, lifecycle);
  addDashboard(app);
  addModels(app, services);
  addChat(app, services);
  addCompletions(app, services);
  addResponses(app, services);
  addAnthropic(app, services);
  addOllama(app, services);
  addKserve(app, services, options.inference ?? new Inference(registry));
  return app;
}
