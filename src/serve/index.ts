// `typert/serve`: the server on a socket, and its handler without one.

/** @module typert/serve */

export { type AppOptions, createApp } from './app.ts';
export { Watch } from './dashboard/watch.ts';
export { ServeError, type ServeErrorFacts, type Status } from './errors.ts';
export type { Lifecycle } from './health.ts';
export { createOpenAI, type InProcessOptions, type OpenAIHandler } from './in-process.ts';
export { type RunningServer, type ServerOptions, startServer } from './listen.ts';
export { createLogger, type LogOptions } from './log.ts';
export { Metrics } from './metrics/metrics.ts';
export type {
  ModelSource,
  ModelState,
  Observer,
  Outcome,
  ParserChoice,
  RequestFacts,
  ServedLLM,
  ServedTokenizer,
} from './model.ts';
export { type Model, Registry, type RegistryOptions } from './registry.ts';
export { type ExporterOptions, OtlpExporter } from './tracing/otlp.ts';
