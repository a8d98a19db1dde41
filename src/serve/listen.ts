// The handler on a socket: plain or TLS, with an end that lets open requests finish.

import { readFileSync } from 'node:fs';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { ServerHttp2Session } from 'node:http2';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Server as NetServer } from 'node:net';
import { createAdaptorServer } from '@hono/node-server';
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response';
import type { Logger } from 'pino';
import { UsageError } from '../base/errors.ts';
import { createApp } from './app.ts';
import { Watch } from './dashboard/watch.ts';
import { ServeError } from './errors.ts';
import { createGrpcServer } from './grpc/server.ts';
import { createService } from './grpc/service.ts';
import { Inference } from './kserve/infer.ts';
import { Metrics } from './metrics/metrics.ts';
import { allOf, type ModelSource, type Observer } from './model.ts';
import { writeSource } from './outgoing.ts';
import { Registry, type RegistryOptions } from './registry.ts';
import { sourceOf } from './sse.ts';
import { type ExporterOptions, OtlpExporter } from './tracing/otlp.ts';

/** Options of `startServer`. */
export interface ServerOptions extends Omit<RegistryOptions, 'observer'> {
  readonly models: readonly ModelSource[];
  /** Default 127.0.0.1: this machine only. */
  readonly host?: string;
  /** Default 8000; 0 takes a free one. */
  readonly port?: number;
  readonly apiKeys?: readonly string[];
  readonly corsOrigins?: readonly string[];
  readonly maxBodySize?: number;
  readonly tls?: { readonly certFile: string; readonly keyFile: string };
  readonly logger?: Logger;
  /** Port of the KServe v2 gRPC service; 0 takes a free one. Default: none. */
  readonly grpcPort?: number;
  /** Where spans of requests are sent (OpenTelemetry, OTLP over HTTP); default: nowhere. */
  readonly tracing?: Omit<ExporterOptions, 'logger'>;
}

/** A server that takes requests. Disposing it is `close` without patience. */
export interface RunningServer extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly grpcPort: number | undefined;
  readonly registry: Registry;
  /** Resolves when all models are loaded; rejects with what loading threw. */
  readonly loaded: Promise<void>;
  /** Turns new requests away and waits for open ones, `patienceMs` at most; then ends engines and socket. Idempotent. */
  close(patienceMs?: number): Promise<void>;
}

function readFile(path: string, what: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new UsageError('cannot be read', { where: `${what} ${path}`, cause });
  }
}

function listen(server: NetServer, host: string, port: number): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const remedy = cause.code === 'EADDRINUSE' ? 'Take another --port, or end what listens there' : undefined;
      reject(
        new UsageError(`cannot listen (${cause.code ?? cause.message})`, {
          where: `${host}:${port}`,
          ...(remedy === undefined ? {} : { remedy }),
          cause,
        }),
      );
    });
    server.listen(port, host, () => resolve(server.address() as AddressInfo));
  });
}

/** Opens the socket at once, so that probes are answered, and loads the models behind it. Throws UsageError when it cannot listen. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { host = '127.0.0.1', port = 8000, logger, tls } = options;
  const metrics = new Metrics();
  const observer: Observer = {
    statistics: (model, statistics) => metrics.statistics(model, statistics),
    stateChanged: (model, state, error) => {
      metrics.stateChanged(model, state);
      if (state === 'failed') logger?.error({ model, err: error }, 'engine failed');
      else logger?.info({ model, state }, 'model');
    },
  };
  const tracing =
    options.tracing && new OtlpExporter(logger === undefined ? options.tracing : { ...options.tracing, logger });
  const registry = new Registry(options.models, { ...options, observer });
  const lifecycle = { draining: false };
  const inference = new Inference(registry);
  const watch = new Watch();
  const { tracing: _, ...rest } = options;
  const app = createApp({
    ...rest,
    registry,
    metrics,
    lifecycle,
    inference,
    watch,
    ...(tracing === undefined ? {} : { tracing }),
  });
  const pem = tls && { cert: readFile(tls.certFile, 'TLS certificate'), key: readFile(tls.keyFile, 'TLS key') };
  const server = createAdaptorServer({
    fetch: async (request, env) => {
      const response = await app.fetch(request, env);
      const source = sourceOf(response);
      if (source === undefined) return response;
      await writeSource(response, source, env.outgoing as ServerResponse);
      return RESPONSE_ALREADY_SENT;
    },
    overrideGlobalObjects: false,
    hostname: host,
    ...(pem === undefined
      ? { createServer }
      : {
          createServer: createTlsServer,
          serverOptions: pem,
        }),
  }) as Server;
  // Longer than load balancers keep idle connections, so that they never send into one that is closing.
  server.keepAliveTimeout = 75_000;
  server.headersTimeout = 20_000;
  const address = await listen(server, host, port);
  const grpc =
    options.grpcPort === undefined
      ? undefined
      : createGrpcServer({
          ...createService({
            inference,
            observer: allOf([metrics, watch]),
            apiKeys: options.apiKeys ?? [],
            draining: () => lifecycle.draining,
            tracing,
          }),
          maxMessageSize: options.maxBodySize ?? 32 << 20,
          failed: (error, { status }) => {
            metrics.requestRefused(status);
            if (status >= 500) logger?.error({ err: error }, 'failed');
          },
          ...(pem === undefined ? {} : { tls: pem }),
        });
  const sessions = new Set<ServerHttp2Session>();
  grpc?.on('session', (session) => {
    sessions.add(session);
    session.once('close', () => sessions.delete(session));
  });
  const grpcAddress =
    grpc === undefined
      ? undefined
      : await listen(grpc, host, options.grpcPort ?? 0).catch((error: unknown) => {
          server.close();
          throw error;
        });
  const loaded = registry.load();
  loaded.catch(() => {});
  const shown = host.includes(':') ? `[${host}]` : host;
  let closing: Promise<void> | undefined;
  const close = async (patienceMs: number): Promise<void> => {
    lifecycle.draining = true;
    const gone = new Promise<void>((resolve) => server.close(() => resolve()));
    const deadline = performance.now() + patienceMs;
    while (registry.models.some(({ numOpen }) => numOpen > 0) && performance.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 20));
    const reason = new ServeError('the server is ending', { status: 503, code: 'shutting_down', retryAfter: 5 });
    for (const model of registry.models) model.cancelAll(reason);
    await registry[Symbol.asyncDispose]();
    server.closeIdleConnections();
    const grpcGone = grpc && new Promise<void>((resolve) => grpc.close(() => resolve()));
    for (const session of sessions) session.close();
    // Answers that are written already still reach their readers.
    const timer = setTimeout(() => {
      server.closeAllConnections();
      for (const session of sessions) session.destroy();
    }, 500);
    await Promise.all([gone, grpcGone]);
    clearTimeout(timer);
    await tracing?.[Symbol.asyncDispose]();
  };
  const closeOnce = (patienceMs = 30_000): Promise<void> => {
    closing ??= close(patienceMs);
    return closing;
  };
  return {
    url: `${tls === undefined ? 'http' : 'https'}://${shown}:${address.port}`,
    port: address.port,
    grpcPort: grpcAddress?.port,
    registry,
    loaded,
    close: closeOnce,
    [Symbol.asyncDispose]: () => closeOnce(0),
  };
}
