// GET /openapi.json: the routes with bodies, from the same schemas that check them (OpenAPI 3.1, whose schemas are JSON Schema).

import type { Hono } from 'hono';
import { z } from 'zod';
import { version } from '../base/version.ts';
import { countSchema, messagesSchema } from './anthropic/input.ts';
import type { Env } from './http.ts';
import { indexSchema } from './kserve/routes.ts';
import { generateSchema, inferSchema } from './kserve/wire.ts';
import { chatSchema as ollamaChat, generateSchema as ollamaGenerate, showSchema } from './ollama/input.ts';
import { chatSchema } from './openai/chat-schema.ts';
import { completionSchema } from './openai/completions.ts';
import { responsesSchema } from './openai/responses-input.ts';

const emptySchema = z.looseObject({});

const bodies: Readonly<Record<string, readonly [summary: string, schema: z.ZodType]>> = {
  '/v1/chat/completions': ['Continue a conversation', chatSchema],
  '/v1/completions': ['Continue a text', completionSchema],
  '/v1/responses': ['Answer, with memory', responsesSchema],
  '/v1/messages': ['Continue a conversation (Anthropic)', messagesSchema],
  '/v1/messages/count_tokens': ['Count the tokens of a conversation (Anthropic)', countSchema],
  '/api/chat': ['Continue a conversation (Ollama)', ollamaChat],
  '/api/generate': ['Answer a prompt (Ollama)', ollamaGenerate],
  '/api/show': ['A model (Ollama)', showSchema],
  '/v2/models/{model}/infer': ['Tensors in, tensors out (KServe v2)', inferSchema],
  '/v2/models/{model}/infer_stream': ['The same, response by response', inferSchema],
  '/v2/models/{model}/generate': ['Flat JSON in, flat JSON out (Triton)', generateSchema],
  '/v2/models/{model}/generate_stream': ['The same, response by response (Triton)', generateSchema],
  '/v2/repository/index': ['Models and their state (Triton)', indexSchema],
  '/v2/repository/models/{model}/load': ['Load a model (Triton)', emptySchema],
  '/v2/repository/models/{model}/unload': ['Unload a model (Triton)', emptySchema],
};

const reads: Readonly<Record<string, string>> = {
  '/health': 'Liveness',
  '/health/ready': 'Readiness',
  '/health_generate': 'One token through each engine',
  '/version': 'Version',
  '/server_info': 'Models, their state and limits',
  '/metrics': 'Numbers for Prometheus',
  '/v1/models': 'Models',
  '/v1/models/{model}': 'A model',
  '/v1/responses/{id}': 'A stored response',
  '/v1/responses/{id}/input_items': 'What a stored response answers',
  '/iteration_stats': 'The newest steps',
  '/api/ps': 'Loaded models (Ollama)',
  '/v1/typert/engine': 'The engine as it was built',
  '/api/tags': 'Models (Ollama)',
  '/api/version': 'Version (Ollama)',
  '/v2': 'Server metadata (KServe v2)',
  '/v2/health/live': 'Liveness (KServe v2)',
  '/v2/health/ready': 'Readiness (KServe v2)',
  '/v2/models/stats': 'Statistics of all models (Triton)',
  '/v2/models/{model}': 'Metadata of a model (KServe v2)',
  '/v2/models/{model}/ready': 'Readiness of a model (KServe v2)',
  '/v2/models/{model}/config': 'Configuration of a model (Triton)',
  '/v2/models/{model}/stats': 'Statistics of a model (Triton)',
};

const deletes: Readonly<Record<string, string>> = { '/v1/responses/{id}': 'Forget a stored response' };

const answers = {
  '200': { description: 'The answer, or its stream' },
  '400': { description: 'A field is wrong or cannot be honoured' },
  '401': { description: 'No valid API key' },
  '404': { description: 'No such model or route' },
  '413': { description: 'The body is too large' },
  '429': { description: 'The queue is full' },
  '503': { description: 'Not ready, or ending' },
};

/** A route as its path says: what stands in braces is a parameter. */
function operation(path: string, summary: string, more: Record<string, unknown> = {}): Record<string, unknown> {
  const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
  const parameters = names.map((name) => ({ name, in: 'path', required: true, schema: { type: 'string' } }));
  return { summary, ...(parameters.length === 0 ? {} : { parameters }), ...more, responses: answers };
}

function build(): Record<string, unknown> {
  const posts = Object.entries(bodies).map(([path, [summary, schema]]) => {
    const { $schema: _, ...body } = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' });
    const requestBody = { required: true, content: { 'application/json': { schema: body } } };
    return [path, { post: operation(path, summary, { requestBody }) }];
  });
  const gets = Object.entries(reads).map(([path, summary]) => [
    path,
    {
      get: operation(path, summary),
      ...(deletes[path] === undefined ? {} : { delete: operation(path, deletes[path]) }),
    },
  ]);
  return {
    openapi: '3.1.0',
    info: { title: 'TypeRT', version },
    paths: Object.fromEntries([...posts, ...gets]),
    components: { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } },
    security: [{ key: [] }, {}],
  };
}

export function addOpenApi(app: Hono<Env>): void {
  let built: Record<string, unknown> | undefined;
  app.get('/openapi.json', (c) => {
    built ??= build();
    return c.json(built);
  });
}
