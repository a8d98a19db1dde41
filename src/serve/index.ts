// `typert/serve`: the server on a socket, and its handler without one.

/** @module typert/serve */

export { type AppOptions, createApp } from './app.ts';
export { Watch } from './dashboard/watch.ts';
export { ServeError } from './errors.ts';
export { createOpenAI, type OpenAIHandler } from './in-process.ts';
export { type RunningServer, type ServerOptions, startServer } from './listen.ts';
export { createLogger, type LogOptions } from './log.ts';
export { Metrics } from './metrics/metrics.ts';
export type { ModelSource, ModelState, ServedLLM } from './model.ts';
export { type Model, Registry, type RegistryOptions } from './registry.ts';
