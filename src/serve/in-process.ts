// The server inside a program: OpenAI's API (and the others) over loaded models, as a fetch function. No socket, no port; give it to a client, or mount it in Hono, Express or Next.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { getRequestListener } from '@hono/node-server';
import { createApp } from './app.ts';
import type { ParserChoice, ServedLLM } from './model.ts';
import { Registry } from './registry.ts';

/** What `createOpenAI` gives. */
export interface OpenAIHandler {
  /** Answers a request. Fits `new OpenAI({ fetch })`, `createOpenAICompatible({ fetch })` and a route of any fetch-based framework. */
  readonly fetch: (input: string | URL | Request, init?: RequestInit) => Promise<Response>;
  /** The same for Express and `node:http`: `app.all('/v1/{*path}', listener)`, before any body parser. */
  readonly listener: (request: IncomingMessage, response: ServerResponse) => Promise<void>;
  readonly registry: Registry;
}

/** Options of `createOpenAI`. */
export interface InProcessOptions extends ParserChoice {
  /** The model that answers, or several by name. They stay the caller's: nothing here disposes them. */
  readonly llm: ServedLLM | Readonly<Record<string, ServedLLM>>;
  /** Name of a single model; default 'default'. */
  readonly name?: string;
  readonly maxQueueSize?: number;
}

function isLLM(value: InProcessOptions['llm']): value is ServedLLM {
  return typeof (value as Partial<ServedLLM>).generateAsync === 'function';
}

/** The models by name, ready to be asked. */
export async function loadInProcess(options: InProcessOptions): Promise<Registry> {
  const { llm, name = 'default', maxQueueSize, toolParser, reasoningParser } = options;
  const models = isLLM(llm) ? { [name]: llm } : llm;
  const registry = new Registry(
    Object.entries(models).map(([modelName, loaded]) => ({
      name: modelName,
      load: async () => loaded,
      owned: false,
      ...(toolParser === undefined ? {} : { toolParser }),
      ...(reasoningParser === undefined ? {} : { reasoningParser }),
    })),
    maxQueueSize === undefined ? {} : { maxQueueSize },
  );
  await registry.load();
  return registry;
}

/** OpenAI's API in this process. */
export async function createOpenAI(options: InProcessOptions): Promise<OpenAIHandler> {
  const registry = await loadInProcess(options);
  const app = createApp({ registry });
  return {
    registry,
    fetch: async (input, init) => await app.fetch(new Request(input, init)),
    listener: getRequestListener(app.fetch, { overrideGlobalObjects: false }),
  };
}
