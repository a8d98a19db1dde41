// What can be asked: text, token ids or chat messages; checked, and turned into token ids.
import { nearest, RequestError, show } from '../base/errors.ts';
import type { ChatTemplate, RenderOptions } from './chat-template.ts';
import { isObject, type JsonObject } from './special-tokens.ts';
import type { Tokenizer } from './tokenizer.ts';

/** One part of a message's content, in the OpenAI form; only `text` parts reach a text-only template. */
export interface ContentPart {
  readonly type: string;
  readonly text?: string;
  readonly [key: string]: unknown;
}

/** A message in the OpenAI form (its keys stay in snake_case, since templates read them by these names). */
export interface ChatMessage {
  /** Which roles there are decides the model's template; `system`, `user`, `assistant` and `tool` are usual. */
  readonly role: string;
  /** Null for an assistant's message that only calls tools. */
  readonly content?: string | readonly ContentPart[] | null;
  readonly name?: string;
  readonly tool_calls?: readonly JsonObject[];
  readonly tool_call_id?: string;
  readonly [key: string]: unknown;
}

/** A prompt as text. */
export interface TextPrompt {
  readonly prompt: string;
  /** Adds the model's begin token. Default true. */
  readonly addSpecialTokens?: boolean;
}

/** A prompt as token ids. */
export interface TokensPrompt {
  readonly promptTokenIds: readonly number[];
}

/** A conversation, rendered by the model's chat template. */
export interface ChatPrompt {
  readonly messages: readonly ChatMessage[];
  readonly tools?: readonly JsonObject[];
  readonly documents?: readonly JsonObject[];
  /** Ends the prompt with the header of the assistant's turn. Default true. */
  readonly addGenerationPrompt?: boolean;
  /** Further variables of the model's chat template, e.g. `{ enable_thinking: false }`. */
  readonly chatTemplateKwargs?: JsonObject;
}

/** Anything `generate` takes as one prompt. */
export type PromptInput = string | TextPrompt | TokensPrompt | ChatPrompt;

/** A checked prompt, told apart by `kind`. */
export type CheckedPrompt =
  | ({ readonly kind: 'text' } & TextPrompt)
  | ({ readonly kind: 'tokens' } & TokensPrompt)
  | ({ readonly kind: 'chat' } & ChatPrompt);

const keys = {
  text: ['prompt', 'addSpecialTokens'],
  tokens: ['promptTokenIds'],
  chat: ['messages', 'tools', 'documents', 'addGenerationPrompt', 'chatTemplateKwargs'],
} as const;

const forms = 'a string, { prompt }, { promptTokenIds } or { messages }';

function refuse(what: string, where: string, expected: string, got: unknown): never {
  throw new RequestError(what, { where, expected, got: show(got) });
}

function checkMessages(messages: unknown): void {
  if (!Array.isArray(messages) || messages.length === 0)
    refuse('not a conversation', 'messages', 'a non-empty list of { role, content }', messages);
  messages.forEach((message: unknown, at) => {
    const where = `messages[${at}]`;
    if (!isObject(message)) refuse('not a message', where, '{ role, content }', message);
    if (typeof message.role !== 'string' || message.role === '')
      refuse('has no role', where, "role: 'user', 'assistant', 'system' …", message.role);
    const { content } = message;
    const isPart = (part: unknown): boolean => isObject(part) && typeof part.type === 'string';
    const fine =
      typeof content === 'string' ||
      (Array.isArray(content) && content.every(isPart)) ||
      // A message that only calls tools has no content.
      ((content === null || content === undefined) && Array.isArray(message.tool_calls));
    if (!fine) refuse('has no content', where, 'content: a string or a list of { type, … }', content);
  });
}

function checkList(value: unknown, where: string): void {
  if (value === undefined) return;
  if (!Array.isArray(value) || !value.every(isObject)) refuse('wrong content', where, 'a list of objects', value);
}

function checkFlag(value: unknown, where: string): void {
  if (value !== undefined && typeof value !== 'boolean') refuse('not a switch', where, 'true or false', value);
}

/**
 * Checks the form of one prompt: exactly one of the known forms, known keys, right types. Throws RequestError. Whether the ids fit the model is
 * checked by `resolvePrompt`.
 */
export function checkPrompt(input: unknown): CheckedPrompt {
  if (typeof input === 'string') return { kind: 'text', prompt: input };
  if (Array.isArray(input) && input.every((id) => typeof id === 'number'))
    throw new RequestError('a bare list of numbers', {
      where: 'prompt',
      expected: forms,
      remedy: 'Write { promptTokenIds: [...] }',
    });
  if (!isObject(input)) refuse('not a prompt', 'prompt', forms, input);
  const heads = (['prompt', 'promptTokenIds', 'messages'] as const).filter((key) => input[key] !== undefined);
  if (heads.length !== 1)
    refuse('not one prompt', 'prompt', `exactly one of prompt, promptTokenIds, messages`, Object.keys(input));
  const kind = heads[0] === 'prompt' ? 'text' : heads[0] === 'messages' ? 'chat' : 'tokens';
  for (const key of Object.keys(input)) {
    const known: readonly string[] = keys[kind];
    if (input[key] !== undefined && !known.includes(key))
      throw new RequestError(`unknown key ${show(key)}`, {
        where: 'prompt',
        expected: known.join(', '),
        remedy: `Did you mean ${nearest(key, known, 1)[0]}?`,
      });
  }
  if (kind === 'text') {
    if (typeof input.prompt !== 'string') refuse('not a text', 'prompt', 'a string', input.prompt);
    checkFlag(input.addSpecialTokens, 'addSpecialTokens');
    return { kind, ...(input as unknown as TextPrompt) };
  }
  if (kind === 'tokens') {
    const ids = input.promptTokenIds;
    if (!Array.isArray(ids)) refuse('not token ids', 'promptTokenIds', 'a list of integers', ids);
    return { kind, promptTokenIds: ids as readonly number[] };
  }
  checkMessages(input.messages);
  checkList(input.tools, 'tools');
  checkList(input.documents, 'documents');
  checkFlag(input.addGenerationPrompt, 'addGenerationPrompt');
  if (input.chatTemplateKwargs !== undefined && !isObject(input.chatTemplateKwargs))
    refuse('wrong content', 'chatTemplateKwargs', 'an object', input.chatTemplateKwargs);
  return { kind, ...(input as unknown as ChatPrompt) };
}

/** What turns a prompt into ids. Without a tokenizer only token ids are taken. */
export interface PromptContext {
  readonly tokenizer: Tokenizer | undefined;
  readonly chatTemplate: ChatTemplate | undefined;
  /** Rows of the model's embedding: ids must be smaller. */
  readonly vocabSize: number;
}

/** A prompt as the model sees it. */
export interface ResolvedPrompt {
  /** The text that was encoded; null for a prompt of token ids. */
  readonly prompt: string | null;
  readonly promptTokenIds: readonly number[];
}

/** Checks `input` and turns it into token ids of the model. Throws RequestError: wrong form, no tokenizer, no template, no tokens, an id out of range. */
export function resolvePrompt(input: unknown, context: PromptContext): ResolvedPrompt {
  const checked = checkPrompt(input);
  const resolved = encodePrompt(checked, context);
  const ids = resolved.promptTokenIds;
  if (ids.length === 0)
    throw new RequestError('the prompt has no tokens', { where: 'prompt', expected: 'at least one token' });
  const bad = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= context.vocabSize);
  if (bad >= 0)
    refuse(
      'token id out of range',
      `promptTokenIds[${bad}]`,
      `an integer from 0 to ${context.vocabSize - 1}`,
      ids[bad],
    );
  return resolved;
}

function encodePrompt(prompt: CheckedPrompt, { tokenizer, chatTemplate }: PromptContext): ResolvedPrompt {
  if (prompt.kind === 'tokens') return { prompt: null, promptTokenIds: prompt.promptTokenIds };
  if (tokenizer === undefined)
    throw new RequestError('there is no tokenizer to read text with', {
      where: 'prompt',
      expected: '{ promptTokenIds }',
      remedy: 'Pass token ids, or load a model that has a tokenizer.json',
    });
  if (prompt.kind === 'text') {
    const options = prompt.addSpecialTokens === undefined ? {} : { addSpecialTokens: prompt.addSpecialTokens };
    return { prompt: prompt.prompt, promptTokenIds: tokenizer.encode(prompt.prompt, options) };
  }
  if (chatTemplate === undefined)
    throw new RequestError('the model has no chat template', {
      where: 'messages',
      remedy: 'Pass a plain prompt instead of messages',
    });
  const options: RenderOptions = {
    ...(prompt.tools === undefined ? {} : { tools: prompt.tools }),
    ...(prompt.documents === undefined ? {} : { documents: prompt.documents }),
    ...(prompt.addGenerationPrompt === undefined ? {} : { addGenerationPrompt: prompt.addGenerationPrompt }),
    ...(prompt.chatTemplateKwargs === undefined ? {} : { extra: prompt.chatTemplateKwargs }),
  };
  const text = chatTemplate.render(prompt.messages, options);
  return { prompt: text, promptTokenIds: tokenizer.encode(text, { addSpecialTokens: false }) };
}
