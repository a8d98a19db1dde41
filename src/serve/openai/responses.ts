// /v1/responses: create, stream, retrieve, delete. Responses are kept in memory so that one can follow another.

import type { Hono } from 'hono';
import { type ChatRun, startChat } from '../chat-run.ts';
import { ServeError, toHttpError } from '../errors.ts';
import { type Env, makeId, now, readJson, type Services } from '../http.ts';
import { toSamplingParams } from '../sampling.ts';
import { event, streamEvents } from '../sse.ts';
import { toolUse } from './chat-schema.ts';
import {
  guidedText,
  type Item,
  type ResponsesBody,
  refuseInResponses,
  responsesSchema,
  toChatMessages,
  toChatTools,
  toItems,
} from './responses-input.ts';
import { ResponseOutput } from './responses-output.ts';

interface Stored {
  readonly response: Readonly<Record<string, unknown>>;
  /** The whole conversation with this answer, without instructions. */
  readonly items: readonly Item[];
  readonly input: readonly Item[];
}

/** The newest responses; older ones are forgotten. */
class Store {
  readonly #kept = new Map<string, Stored>();
  readonly #most = 1000;

  put(id: string, stored: Stored): void {
    this.#kept.set(id, stored);
    const oldest = this.#kept.keys().next();
    if (this.#kept.size > this.#most && !oldest.done) this.#kept.delete(oldest.value);
  }

  get(id: string, param?: string): Stored {
    const found = this.#kept.get(id);
    if (found !== undefined) return found;
    throw new ServeError(`there is no response '${id}'`, {
      status: param === undefined ? 404 : 400,
      code: 'response_not_found',
      ...(param === undefined ? {} : { param }),
      expected: 'the id of a response that was stored; a restart forgets them',
    });
  }

  delete(id: string): void {
    this.get(id);
    this.#kept.delete(id);
  }
}

interface Turn {
  readonly body: ResponsesBody;
  readonly run: ChatRun;
  readonly model: string;
  readonly input: readonly Item[];
  readonly history: readonly Item[];
  readonly store: Store;
}

function frame({ body, model }: Turn, id: string, created: number): Record<string, unknown> {
  return {
    id,
    object: 'response',
    created_at: created,
    status: 'in_progress',
    background: false,
    error: null,
    incomplete_details: null,
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    model,
    output: [],
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    previous_response_id: body.previous_response_id ?? null,
    reasoning: { effort: body.reasoning?.effort ?? null, summary: null },
    store: body.store ?? true,
    temperature: body.temperature ?? null,
    text: { format: body.text?.format ?? { type: 'text' } },
    tool_choice: body.tool_choice ?? 'auto',
    tools: body.tools ?? [],
    top_p: body.top_p ?? null,
    truncation: 'disabled',
    usage: null,
    metadata: body.metadata ?? {},
  };
}

/** All events of a turn; the last one carries the whole response. Errors pass. */
async function* events(turn: Turn) {
  const id = makeId('resp_');
  const base = frame(turn, id, now());
  yield { type: 'response.created', response: base };
  yield { type: 'response.in_progress', response: base };
  const output = new ResponseOutput();
  try {
    yield* output.read(turn.run);
  } catch (error) {
    const { message, code } = toHttpError(error);
    const failed = {
      ...base,
      status: 'failed',
      error: { code: code ?? 'server_error', message },
      output: output.items,
    };
    yield { type: 'response.failed', response: failed, cause: error };
    return;
  }
  const { promptTokens, completionTokens, cachedTokens = 0 } = turn.run.usage();
  const cut = output.finish === 'length';
  const response = {
    ...base,
    status: cut ? 'incomplete' : 'completed',
    incomplete_details: cut ? { reason: 'max_output_tokens' } : null,
    output: output.items,
    usage: {
      input_tokens: promptTokens,
      input_tokens_details: { cached_tokens: cachedTokens },
      output_tokens: completionTokens,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: promptTokens + completionTokens,
    },
  };
  if (turn.body.store ?? true)
    turn.store.put(id, { response, input: turn.input, items: [...turn.history, ...turn.input, ...output.items] });
  yield { type: cut ? 'response.incomplete' : 'response.completed', response };
}

async function* lines(turn: Turn) {
  let sequence_number = 0;
  for await (const made of events(turn)) {
    const { cause: _, ...data } = made as Record<string, unknown> & { type: string; cause?: unknown };
    yield event({ ...data, sequence_number: sequence_number++ }, data.type);
  }
}

async function whole(turn: Turn): Promise<Record<string, unknown>> {
  let last: Record<string, unknown> = {};
  for await (const made of events(turn)) last = made as Record<string, unknown>;
  if (last.type === 'response.failed') throw last.cause;
  return last.response as Record<string, unknown>;
}

export function addResponses(app: Hono<Env>, services: Services): void {
  const store = new Store();
  app.post('/v1/responses', async (c) => {
    const scope = c.get('scope');
    const body = await readJson(c, responsesSchema);
    refuseInResponses(body);
    const model = services.registry.get(body.model);
    const input = toItems(body.input);
    const previous = body.previous_response_id;
    const history = previous ? store.get(previous, 'previous_response_id').items : [];
    const system = body.instructions ? [{ role: 'system', content: body.instructions }] : [];
    const run = startChat({
      model,
      messages: [...system, ...toChatMessages([...history, ...input])],
      ...toolUse(toChatTools(body.tools), body.tool_choice),
      parallelToolCalls: body.parallel_tool_calls ?? true,
      templateKwargs: body.reasoning?.effort ? { reasoning_effort: body.reasoning.effort } : {},
      params: {
        ...toSamplingParams(body as Parameters<typeof toSamplingParams>[0], model.llm.recommendedSamplingParams),
        ...guidedText(body),
        ...(typeof body.max_output_tokens === 'number' ? { maxTokens: body.max_output_tokens } : {}),
        n: 1,
      },
      signal: scope.signal,
      observer: scope.observer,
    });
    const turn = { body, run, model: model.name, input, history, store };
    return body.stream ? streamEvents(lines(turn), { abort: scope.abort }) : c.json(await whole(turn));
  });
  app.get('/v1/responses/:id', (c) => c.json(store.get(c.req.param('id')).response));
  app.get('/v1/responses/:id/input_items', (c) => {
    const { input } = store.get(c.req.param('id'));
    return c.json({ object: 'list', data: input, has_more: false });
  });
  app.delete('/v1/responses/:id', (c) => {
    const id = c.req.param('id');
    store.delete(id);
    return c.json({ id, object: 'response', deleted: true });
  });
}
