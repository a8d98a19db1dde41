import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { RequestError } from '../base/errors.ts';
import { ChatTemplate } from './chat-template.ts';
import { checkPrompt, type PromptContext, resolvePrompt } from './inputs.ts';
import { Tokenizer } from './tokenizer.ts';

const folder = new URL('../../models/storyteller-7m/', import.meta.url);
const assets = new Map(
  ['tokenizer.json', 'tokenizer_config.json'].map((name) => [name, readFileSync(new URL(name, folder), 'utf8')]),
);
const context: PromptContext = {
  tokenizer: Tokenizer.fromAssets(assets, 'model'),
  chatTemplate: ChatTemplate.fromAssets(assets, 'model'),
  vocabSize: 4096,
};
const bare: PromptContext = { tokenizer: undefined, chatTemplate: undefined, vocabSize: 100 };
const user = { role: 'user', content: 'Hi' };

describe('prompts become token ids', () => {
  test('text', () => {
    expect(resolvePrompt('<|im_end|>ok', context)).toEqual({ prompt: '<|im_end|>ok', promptTokenIds: [2, 1160] });
    expect(resolvePrompt({ prompt: 'ok' }, context)).toEqual({ prompt: 'ok', promptTokenIds: [1160] });
  });

  test('token ids, also without a tokenizer', () => {
    expect(resolvePrompt({ promptTokenIds: [0, 99] }, bare)).toEqual({ prompt: null, promptTokenIds: [0, 99] });
  });

  test('a chat, rendered, with its special tokens once', () => {
    const { prompt, promptTokenIds } = resolvePrompt({ messages: [user] }, context);
    expect(prompt).toBe('<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n');
    expect(promptTokenIds.filter((id) => id < 3)).toEqual([1, 2, 1]);
    const open = resolvePrompt({ messages: [user], addGenerationPrompt: false }, context);
    expect(open.prompt).toBe('<|im_start|>user\nHi<|im_end|>\n');
  });
});

describe('wrong prompts are refused', () => {
  test.each<[string, unknown, RegExp]>([
    ['nothing', undefined, /not a prompt; expected a string/],
    ['a number', 3, /not a prompt/],
    ['a bare list of ids', [1, 2], /Write \{ promptTokenIds/],
    ['an empty object', {}, /exactly one of/],
    ['two forms at once', { prompt: 'a', promptTokenIds: [1] }, /exactly one of/],
    ['an unknown key', { prompt: 'a', addSpecialToken: false }, /unknown key "addSpecialToken".*addSpecialTokens\?/],
    ['a key of another form', { promptTokenIds: [1], tools: [] }, /unknown key "tools"/],
    ['text that is no text', { prompt: 3 }, /not a text/],
    ['a switch that is none', { prompt: 'a', addSpecialTokens: 1 }, /not a switch/],
    ['ids that are no list', { promptTokenIds: 'abc' }, /not token ids/],
    ['a fraction', { promptTokenIds: [1, 1.5] }, /promptTokenIds\[1\]: token id out of range.*0 to 4095.*got 1\.5/],
    ['a negative id', { promptTokenIds: [-1] }, /out of range/],
    ['NaN', { promptTokenIds: [Number.NaN] }, /out of range/],
    ['an id as text', { promptTokenIds: ['1'] }, /out of range/],
    ['an id above the vocabulary', { promptTokenIds: [4096] }, /out of range/],
    ['no tokens', { promptTokenIds: [] }, /no tokens/],
    ['empty text', '', /no tokens/],
    ['no messages', { messages: [] }, /not a conversation/],
    ['messages that are text', { messages: 'Hi' }, /not a conversation/],
    ['a message that is none', { messages: ['Hi'] }, /messages\[0\]: not a message/],
    ['no role', { messages: [user, { content: 'x' }] }, /messages\[1\]: has no role/],
    ['no content', { messages: [{ role: 'user' }] }, /messages\[0\]: has no content/],
    ['parts without a type', { messages: [{ role: 'user', content: [{ text: 'x' }] }] }, /has no content/],
    ['tools that are no list', { messages: [user], tools: {} }, /tools: wrong content/],
    ['variables that are no object', { messages: [user], chatTemplateKwargs: [] }, /chatTemplateKwargs/],
  ])('%s', (_, input, message) => {
    expect(() => resolvePrompt(input, context)).toThrow(RequestError);
    expect(() => resolvePrompt(input, context)).toThrow(message);
  });

  test('text where there is no tokenizer', () => {
    expect(() => resolvePrompt('Hi', bare)).toThrow(/no tokenizer.*expected \{ promptTokenIds \}.*tokenizer\.json/);
    expect(() => resolvePrompt({ messages: [user] }, { ...context, chatTemplate: undefined })).toThrow(
      /no chat template/,
    );
  });

  test('keys that are undefined count as left out', () => {
    expect(checkPrompt({ prompt: 'a', messages: undefined, tools: undefined })).toMatchObject({
      kind: 'text',
      prompt: 'a',
    });
    expect(checkPrompt({ messages: [{ role: 'assistant', content: null, tool_calls: [] }] }).kind).toBe('chat');
  });
});
