import { describe, expect, test } from 'vitest';
import { ConfigError, RequestError } from '../base/errors.ts';
import { ChatTemplate } from './chat-template.ts';
import type { ChatMessage } from './inputs.ts';
import { strftime } from './strftime.ts';

const clock = (): Date => new Date(2025, 2, 7, 9, 5, 2);

function template(source: unknown, rest: object = {}): ChatTemplate {
  const config = JSON.stringify({ chat_template: source, ...rest });
  return ChatTemplate.fromAssets(new Map([['tokenizer_config.json', config]]), 'model', clock);
}

const hello: ChatMessage[] = [{ role: 'user', content: 'Hello' }];

describe('what a template finds', () => {
  test('messages, the generation prompt, special tokens as text or object', () => {
    const source = `{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m['content'] | trim }}{{ eos_token }}
{% endfor %}
{% if add_generation_prompt %}[assistant]{% endif %}`;
    const chat = template(source, { bos_token: '<s>', eos_token: { content: '</s>' } });
    const messages = [{ role: 'system', content: 'Be kind. ' }, ...hello];
    expect(chat.render(messages)).toBe('<s>[system]Be kind.</s>\n[user]Hello</s>\n[assistant]');
    expect(chat.render(hello, { addGenerationPrompt: false })).toBe('<s>[user]Hello</s>\n');
  });

  test('block tags take their line with them (trim_blocks, lstrip_blocks)', () => {
    expect(template('a\n  {% if true %}\nb\n  {% endif %}\nc').render(hello)).toBe('a\nb\nc');
  });

  test('a token that the model has not is undefined, tools and documents are none', () => {
    const source = '{{ bos_token is defined }} {{ tools is none }} {{ documents is none }} {{ nothing is defined }}';
    expect(template(source, { bos_token: null }).render(hello).toLowerCase()).toBe('false true true false');
  });

  test('extra variables, which win', () => {
    const chat = template('{{ enable_thinking }} {{ add_generation_prompt }}');
    const extra = { enable_thinking: false, add_generation_prompt: 'mine' };
    expect(chat.render(hello, { extra }).toLowerCase()).toBe('false mine');
  });

  test('the functions of Hugging Face: strftime_now in English, range, namespace, loop controls', () => {
    const chat = template(`{{ strftime_now('%d %B %Y, %A') }}
{%- set ns = namespace(sum=0) %}
{%- for i in range(1, 10, 2) %}{% if i == 7 %}{% break %}{% endif %}{% set ns.sum = ns.sum + i %}{% endfor %} {{ ns.sum }}`);
    expect(chat.render(hello)).toBe('07 March 2025, Friday 9');
  });

  test("tojson as Python's json.dumps without escapes for HTML or non-ASCII", () => {
    const tools = [
      { type: 'function', function: { name: 'wetter', description: `Grüße <b> & 'x' "y"`, n: [1, 2.5, null, true] } },
    ];
    const flat =
      '[{"type": "function", "function": {"name": "wetter", "description": "Grüße <b> & \'x\' \\"y\\"", "n": [1, 2.5, null, true]}}]';
    expect(template('{{ tools | tojson }}').render(hello, { tools })).toBe(flat);
    expect(template('{{ {"a": [1], "b": {}} | tojson(indent=2) }}').render(hello)).toBe(
      '{\n  "a": [\n    1\n  ],\n  "b": {}\n}',
    );
  });
});

describe('content', () => {
  const parts: ChatMessage[] = [
    {
      role: 'user',
      content: [
        { type: 'text', text: 'one' },
        { type: 'text', text: 'two' },
      ],
    },
  ];

  test('parts are joined for a template that wants a string', () => {
    expect(template('{{ messages[0].content }}').render(parts)).toBe('one\ntwo');
  });

  test('parts stay parts for a template that walks over them', () => {
    const source = "{% for p in messages[0]['content'] %}<{{ p.text }}>{% endfor %}";
    expect(template(source).render(parts)).toBe('<one><two>');
  });

  test('a picture is refused by a template that wants a string', () => {
    const picture = [{ role: 'user', content: [{ type: 'image_url' }] }];
    expect(() => template('{{ messages[0].content }}').render(picture)).toThrow(
      /takes text only.*expected type 'text'/,
    );
  });

  test("a call's arguments become an object when they are JSON text", () => {
    const source =
      '{% for c in messages[0].tool_calls %}{{ c.function.arguments.city }}{{ c.function.arguments }};{% endfor %}';
    const call = (args: unknown): object => ({ function: { name: 'f', arguments: args } });
    const tool_calls = [call('{"city": "Paris"}'), call({ city: 'Rome' }), call('not json')] as never;
    expect(template(source).render([{ role: 'assistant', tool_calls }])).toBe(
      'Paris{"city": "Paris"};Rome{"city": "Rome"};not json;',
    );
  });
});

describe('several templates', () => {
  const named = [
    { name: 'default', template: 'plain' },
    { name: 'tool_use', template: 'with tools' },
    { name: 'rag', template: 'with documents' },
  ];

  test('tool_use is chosen when there are tools, others by name', () => {
    const chat = template(named);
    expect(chat.names).toEqual(['default', 'tool_use', 'rag']);
    expect(chat.render(hello)).toBe('plain');
    expect(chat.render(hello, { tools: [] })).toBe('with tools');
    expect(chat.render(hello, { template: 'rag' })).toBe('with documents');
    expect(() => chat.render(hello, { template: 'rga' })).toThrow(/no chat template "rga".*default, tool_use, rag/);
    expect(template(named.slice(2)).render(hello)).toBe('with documents');
    expect(() => template(named.slice(1)).render(hello)).toThrow(RequestError);
  });

  test('files of their own win over tokenizer_config.json', () => {
    const assets = new Map([
      ['tokenizer_config.json', '{"chat_template": "old"}'],
      ['chat_template.jinja', 'new'],
      ['additional_chat_templates/tool_use.jinja', 'tools'],
    ]);
    const chat = ChatTemplate.fromAssets(assets, 'model');
    expect(chat.render(hello)).toBe('new');
    expect(chat.render(hello, { tools: [{}] })).toBe('tools');
    const json = new Map([['chat_template.json', '{"chat_template": "from json"}']]);
    expect(ChatTemplate.fromAssets(json, 'model').render(hello)).toBe('from json');
  });
});

describe('what goes wrong is a RequestError', () => {
  test('no template, with the remedy', () => {
    const chat = ChatTemplate.fromAssets(new Map(), 'model');
    expect(chat.names).toEqual([]);
    expect(() => chat.render(hello)).toThrow(RequestError);
    expect(() => chat.render(hello)).toThrow(/model: the model has no chat template\. Pass a plain prompt/);
  });

  test("the template's own refusal, in its words", () => {
    const chat = template("{{ raise_exception('Roles must alternate') }}");
    expect(() => chat.render(hello)).toThrow(RequestError);
    expect(() => chat.render(hello)).toThrow(/refuses these messages: Roles must alternate/);
  });

  test.each([
    ['syntax', '{% if %}'],
    ['an unknown filter', '{{ messages | no_such_filter }}'],
    ['a wrong operation', '{{ messages[0] + 1 }}'],
    ['an endless range', '{% for i in range(1000000000) %}x{% endfor %}'],
  ])('%s in the template', (_, source) => {
    const chat = template(source);
    expect(() => chat.render(hello)).toThrow(RequestError);
    expect(() => chat.render(hello)).toThrow(/chat template failed: .+/);
  });

  test('a damaged entry is a ConfigError when the model is loaded', () => {
    expect(() => template(3)).toThrow(ConfigError);
    expect(() => template([{ name: 'default' }])).toThrow(/tokenizer_config\.json: chat_template is wrong/);
  });
});

test('strftime formats as Python does', () => {
  // Python 3.11: datetime(2025, 3, 7, 9, 5, 2).strftime(...)
  expect(strftime(clock(), '%Y-%m-%d %H:%M:%S %y %j')).toBe('2025-03-07 09:05:02 25 066');
  expect(strftime(clock(), '%a %A %b %B %e %-d %I %p %w %u %%')).toBe('Fri Friday Mar March  7 7 09 AM 5 5 %');
  expect(strftime(clock(), '%c | %x | %X | %F | %T | %Q')).toBe(
    'Fri Mar  7 09:05:02 2025 | 03/07/25 | 09:05:02 | 2025-03-07 | 09:05:02 | %Q',
  );
  expect(strftime(new Date(2025, 11, 31, 0, 0), '%j %I %p')).toBe('365 12 AM');
});
