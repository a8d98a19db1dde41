// Chat messages → prompt text, by the Jinja template that a model ships. The template is the model's; what Hugging Face templates expect around it
// (variables, functions, trimmed blocks) is given here: https://huggingface.co/docs/transformers/chat_templating.
import { Environment, Interpreter, Template } from '@huggingface/jinja';
import { ConfigError, RequestError, show } from '../base/errors.ts';
import type { ChatMessage, ContentPart } from './inputs.ts';
import { type Assets, isObject, type JsonObject, readJsonAsset, readSpecialTokenTexts } from './special-tokens.ts';
import { strftime } from './strftime.ts';

/** Options of `ChatTemplate.render`. */
export interface RenderOptions {
  /** Ends the prompt with the header of the assistant's turn. Default true. */
  readonly addGenerationPrompt?: boolean;
  /** Tools the model may call, as JSON schemas in the OpenAI form. */
  readonly tools?: readonly JsonObject[];
  /** Documents for retrieval-augmented templates. */
  readonly documents?: readonly JsonObject[];
  /** Further variables of the template, e.g. `enable_thinking`. They win over the ones set here. */
  readonly extra?: JsonObject;
  /** Which of several named templates; by default `tool_use` when tools are given and there is one, else `default`. */
  readonly template?: string;
}

/** Longest list that `range` may make, as in Jinja's sandbox. */
const maxRange = 100_000;
const remedy = 'Pass a plain prompt ({ prompt } or { promptTokenIds }) instead of messages';

class RaisedByTemplate extends Error {}

function range(start: unknown, stop?: unknown, step?: unknown): number[] {
  const [from, to] = stop === undefined ? [0, Number(start)] : [Number(start), Number(stop)];
  const by = step === undefined ? 1 : Number(step);
  const count = Math.max(0, Math.ceil((to - from) / by));
  if (!(count <= maxRange)) throw new Error(`range is too long, at most ${maxRange} items`);
  return Array.from({ length: count }, (_, i) => from + i * by);
}

/** True when a template walks over a message's content as a list of parts; otherwise it wants one string. */
function readsParts(source: string): boolean {
  return /\bfor\s+\w+\s+in\s+[\w.[\]'"]*content\b/.test(source);
}

function textOf(parts: readonly ContentPart[]): string {
  return parts
    .map((part) => {
      if (part.type === 'text' && typeof part.text === 'string') return part.text;
      const where = `messages: a part of type ${show(part.type)}`;
      throw new RequestError("the model's chat template takes text only", { where, expected: "type 'text'" });
    })
    .join('\n');
}

/** OpenAI's wire form carries a call's arguments as JSON text; templates want the object, to write it in the model's own way. */
function parseArguments(call: unknown): unknown {
  if (!isObject(call) || !isObject(call.function) || typeof call.function.arguments !== 'string') return call;
  try {
    const parsed: unknown = JSON.parse(call.function.arguments);
    return isObject(parsed) ? { ...call, function: { ...call.function, arguments: parsed } } : call;
  } catch {
    return call;
  }
}

function toTemplateMessage(message: ChatMessage, keepParts: boolean): JsonObject {
  const content = Array.isArray(message.content) && !keepParts ? textOf(message.content) : message.content;
  const calls = Array.isArray(message.tool_calls) ? { tool_calls: message.tool_calls.map(parseArguments) } : {};
  return { ...message, content, ...calls };
}

/** The chat templates of one model, by name; a model with one has it under `default`. */
export class ChatTemplate {
  readonly #sources: ReadonlyMap<string, string>;
  readonly #parsed = new Map<string, Template>();
  readonly #specialTokens: JsonObject;
  readonly #label: string;
  readonly #now: () => Date;

  private constructor(sources: ReadonlyMap<string, string>, specialTokens: JsonObject, label: string, now: () => Date) {
    this.#sources = sources;
    this.#specialTokens = specialTokens;
    this.#label = label;
    this.#now = now;
  }

  /**
   * Reads `chat_template.jinja` and `additional_chat_templates/NAME.jinja`, else `chat_template` of `tokenizer_config.json` (one template, or a list of
   * named ones), else `chat_template.json`. A model without any gives an object whose `render` refuses. `now` is the clock behind `strftime_now`.
   * Throws ConfigError when a file is damaged.
   */
  static fromAssets(assets: Assets, label: string, now: () => Date = () => new Date()): ChatTemplate {
    const special = readSpecialTokenTexts(assets, label);
    return new ChatTemplate(readSources(assets, label), { ...special }, label, now);
  }

  /** Names of the templates there are; empty when the model has none. */
  get names(): readonly string[] {
    return [...this.#sources.keys()];
  }

  /**
   * The prompt text of a conversation. It spells its special tokens out: encode it with `addSpecialTokens: false`, or they are doubled.
   * Throws RequestError when there is no template, or with the template's own message when it refuses the messages.
   */
  render(messages: readonly ChatMessage[], options: RenderOptions = {}): string {
    const name = this.#choose(options);
    const source = this.#sources.get(name)!;
    const keepParts = readsParts(source);
    const variables: Record<string, unknown> = {
      ...{ true: true, True: true, false: false, False: false, none: null, None: null },
      range,
      raise_exception: (message: unknown) => {
        throw new RaisedByTemplate(typeof message === 'string' ? message : show(message));
      },
      strftime_now: (format: unknown) => strftime(this.#now(), String(format)),
      ...this.#specialTokens,
      messages: messages.map((message) => toTemplateMessage(message, keepParts)),
      tools: options.tools ?? null,
      documents: options.documents ?? null,
      add_generation_prompt: options.addGenerationPrompt ?? true,
      ...options.extra,
    };
    try {
      return this.#run(name, source, variables);
    } catch (cause) {
      if (cause instanceof RaisedByTemplate)
        throw new RequestError(`the model's chat template refuses these messages: ${cause.message}`, {
          where: 'messages',
          cause,
        });
      throw new RequestError(
        `the model's chat template failed: ${cause instanceof Error ? cause.message : show(cause)}`,
        { where: `${this.#label}, template ${show(name)}`, remedy, cause },
      );
    }
  }

  #run(name: string, source: string, variables: Readonly<Record<string, unknown>>): string {
    let template = this.#parsed.get(name);
    if (template === undefined) this.#parsed.set(name, (template = new Template(source)));
    // Not Template.render: it declares its own strftime_now (in the machine's language) and an unbounded range, which cannot be declared twice.
    const environment = new Environment();
    for (const [key, value] of Object.entries(variables)) if (value !== undefined) environment.set(key, value);
    const result: { readonly value: unknown } = new Interpreter(environment).run(template.parsed);
    return String(result.value);
  }

  #choose(options: RenderOptions): string {
    if (this.#sources.size === 0)
      throw new RequestError('the model has no chat template', { where: this.#label, remedy });
    const wanted =
      options.template ?? (options.tools !== undefined && this.#sources.has('tool_use') ? 'tool_use' : 'default');
    if (this.#sources.has(wanted)) return wanted;
    if (options.template === undefined && this.#sources.size === 1) return this.names[0]!;
    throw new RequestError(`the model has no chat template ${show(wanted)}`, {
      where: this.#label,
      expected: `one of ${this.names.join(', ')}`,
      remedy: 'Name one of them as template',
    });
  }
}

function readSources(assets: Assets, label: string): ReadonlyMap<string, string> {
  const sources = new Map<string, string>();
  const main = assets.get('chat_template.jinja');
  if (main !== undefined) sources.set('default', main);
  for (const [path, text] of assets) {
    const name = /^additional_chat_templates\/([^/]+)\.jinja$/.exec(path)?.[1];
    if (name !== undefined) sources.set(name, text);
  }
  if (sources.size > 0) return sources;
  for (const file of ['tokenizer_config.json', 'chat_template.json']) {
    const value = readJsonAsset(assets, file, label)?.chat_template;
    if (value === undefined || value === null) continue;
    const list: readonly unknown[] = Array.isArray(value) ? value : [{ name: 'default', template: value }];
    for (const entry of list) {
      if (!isObject(entry) || typeof entry.name !== 'string' || typeof entry.template !== 'string')
        throw new ConfigError('chat_template is wrong', {
          where: `${label}/${file}`,
          expected: 'a string, or a list of {name, template}',
          got: show(value),
        });
      sources.set(entry.name, entry.template);
    }
    return sources;
  }
  return sources;
}
