// Ollama's API: chat, generate, tags, show, ps, version. Streams are JSON lines, and streaming is the default.

import type { Hono } from 'hono';
import { version } from '../../base/version.ts';
import { type ChatAnswer, type ChatPiece, type ChatRun, collectChat, startChat } from '../chat-run.ts';
import { textError, toHttpError } from '../errors.ts';
import { type Ctx, type Env, readJson, type Scope, type Services } from '../http.ts';
import type { Model } from '../registry.ts';
import { streamText } from '../sse.ts';
import {
  chatSchema,
  generateSchema,
  modelName,
  paramsOf,
  refuseInOllama,
  showSchema,
  thinkingSwitch,
  toMessages,
} from './input.ts';

type Parts = Pick<ChatAnswer, 'content' | 'reasoning'> & { readonly toolCalls: readonly ChatPiece[] };
/** How one route writes a part of an answer. */
type Write = (parts: Parts) => Record<string, unknown>;

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return {};
  }
}

const asMessage: Write = ({ content, reasoning, toolCalls }) => ({
  message: {
    role: 'assistant',
    content,
    ...(reasoning === '' ? {} : { thinking: reasoning }),
    ...(toolCalls.length === 0
      ? {}
      : {
          tool_calls: toolCalls.flatMap((call) =>
            call.type === 'toolCall'
              ? [{ id: call.id, function: { index: call.at, name: call.name, arguments: parse(call.arguments) } }]
              : [],
          ),
        }),
  },
});

const asResponse: Write = ({ content, reasoning }) => ({
  response: content,
  ...(reasoning === '' ? {} : { thinking: reasoning }),
});

/** Nanoseconds. */
const ns = (milliseconds: number): number => Math.round(milliseconds * 1e6);

class Answering {
  readonly #run: ChatRun;
  readonly #model: string;
  readonly #write: Write;
  readonly #started = performance.now();
  #first: number | undefined;

  constructor(run: ChatRun, model: string, write: Write) {
    this.#run = run;
    this.#model = model;
    this.#write = write;
  }

  #line(parts: Parts, rest: Record<string, unknown>): Record<string, unknown> {
    return { model: this.#model, created_at: new Date().toISOString(), ...this.#write(parts), ...rest };
  }

  #end(reason: 'stop' | 'length'): Record<string, unknown> {
    const ended = performance.now();
    const first = this.#first ?? ended;
    const { promptTokens, completionTokens } = this.#run.usage();
    return {
      done: true,
      done_reason: reason,
      total_duration: ns(ended - this.#started),
      load_duration: 0,
      prompt_eval_count: promptTokens,
      prompt_eval_duration: ns(first - this.#started),
      eval_count: completionTokens,
      eval_duration: ns(ended - first),
    };
  }

  async *lines(): AsyncGenerator<string, void, undefined> {
    const line = (data: unknown) => `${JSON.stringify(data)}\n`;
    const none: Parts = { content: '', reasoning: '', toolCalls: [] };
    let reason: 'stop' | 'length' = 'stop';
    try {
      for await (const { pieces, finish } of this.#run.events) {
        this.#first ??= performance.now();
        const join = (type: 'content' | 'reasoning') =>
          pieces.map((piece) => (piece.type === type ? piece.text : '')).join('');
        const toolCalls = pieces.filter(({ type }) => type === 'toolCall');
        if (pieces.length > 0)
          yield line(
            this.#line({ content: join('content'), reasoning: join('reasoning'), toolCalls }, { done: false }),
          );
        if (finish === 'length') reason = 'length';
      }
      yield line(this.#line(none, this.#end(reason)));
    } catch (error) {
      yield line(textError(toHttpError(error)));
    }
  }

  async whole(): Promise<Record<string, unknown>> {
    const [answer] = await collectChat(this.#run);
    return this.#line(answer!, this.#end(answer!.finish === 'length' ? 'length' : 'stop'));
  }
}

async function answer(c: Ctx, scope: Scope, stream: boolean | null | undefined, answering: Answering) {
  if (stream === false) return c.json(await answering.whole());
  return streamText(answering.lines(), { contentType: 'application/x-ndjson', abort: scope.abort });
}

function details(model: Model): Record<string, unknown> {
  const architecture = model.state === 'ready' ? model.llm.config.pretrained_config.architecture : '';
  return {
    parent_model: '',
    format: 'typert',
    family: architecture,
    families: [architecture],
    parameter_size: '',
    quantization_level: '',
  };
}

export function addOllama(app: Hono<Env>, { registry }: Services): void {
  const find = (name: string): Model =>
    registry.get(
      modelName(
        name,
        registry.models.map(({ name: known }) => known),
      ),
    );
  const card = (model: Model) => ({
    name: model.name,
    model: model.name,
    modified_at: new Date(model.created * 1000).toISOString(),
    size: 0,
    digest: '',
    details: details(model),
  });

  app.post('/api/chat', async (c) => {
    const scope = c.get('scope');
    const body = await readJson(c, chatSchema);
    refuseInOllama(body);
    const model = find(body.model);
    const run = startChat({
      model,
      messages: toMessages(body.messages),
      tools: body.tools ?? [],
      templateKwargs: thinkingSwitch(body.think),
      params: paramsOf(body, model.llm.recommendedSamplingParams),
      signal: scope.signal,
      observer: scope.observer,
    });
    return answer(c, scope, body.stream, new Answering(run, body.model, asMessage));
  });

  app.post('/api/generate', async (c) => {
    const scope = c.get('scope');
    const body = await readJson(c, generateSchema);
    refuseInOllama(body);
    const model = find(body.model);
    const { llm } = model;
    const prompt = body.prompt ?? '';
    // A prompt is a message of the user, unless it is raw or the model knows no messages.
    const plain = body.raw || llm.chatTemplate === undefined;
    const system = body.system ? [{ role: 'system', content: body.system }] : [];
    const run = startChat({
      model,
      messages: [...system, { role: 'user', content: prompt }],
      ...(plain ? { promptTokenIds: llm.encode(prompt).promptTokenIds } : {}),
      templateKwargs: thinkingSwitch(body.think),
      params: paramsOf(body, llm.recommendedSamplingParams),
      signal: scope.signal,
      observer: scope.observer,
    });
    return answer(c, scope, body.stream, new Answering(run, body.model, asResponse));
  });

  app.get('/api/tags', (c) => c.json({ models: registry.models.map(card) }));
  app.get('/api/ps', (c) => c.json({ models: registry.models.filter(({ state }) => state === 'ready').map(card) }));
  app.get('/api/version', (c) => c.json({ version }));
  app.post('/api/show', async (c) => {
    const body = await readJson(c, showSchema);
    const model = find(body.model ?? body.name ?? '');
    const { config, limits } = model.llm;
    const { architecture } = config.pretrained_config;
    return c.json({
      modelfile: '',
      parameters: '',
      template: '',
      details: details(model),
      model_info: {
        'general.architecture': architecture,
        [`${architecture}.context_length`]: limits.maxSeqLen,
        [`${architecture}.vocab_size`]: limits.vocabSize,
      },
      capabilities: [
        'completion',
        ...(model.traits.templateShowsTools ? ['tools'] : []),
        ...(model.traits.reasoning === undefined ? [] : ['thinking']),
      ],
      modified_at: new Date(model.created * 1000).toISOString(),
    });
  });
}
