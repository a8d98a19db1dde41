import { describe, expect, test } from 'vitest';
import { type OutputParser, type Piece, plain } from './pieces.ts';
import { reasoningFamilies, reasoningParser } from './reasoning.ts';
import { toolFamilies } from './tools.ts';

/** Pieces of one kind that follow each other are one. */
function joined(pieces: readonly Piece[]): Piece[] {
  const out: Piece[] = [];
  for (const piece of pieces) {
    const last = out.at(-1);
    if (piece.type !== 'toolCall' && last !== undefined && last.type === piece.type)
      out[out.length - 1] = { ...last, text: last.text + piece.text };
    else out.push(piece);
  }
  return out;
}

function read(create: () => OutputParser, parts: readonly string[]): Piece[] {
  const parser = create();
  return joined([...parts.flatMap((part) => parser.push(part)), ...parser.end()]);
}

/** The same pieces whole, letter by letter, and cut in two anywhere. */
function expectPieces(create: () => OutputParser, text: string, expected: readonly Piece[]): void {
  expect(read(create, [text])).toEqual(expected);
  expect(read(create, [...text])).toEqual(expected);
  for (let at = 1; at < text.length; at++) expect(read(create, [text.slice(0, at), text.slice(at)])).toEqual(expected);
}

const call = (name: string, args: unknown): Piece => ({ type: 'toolCall', name, arguments: JSON.stringify(args) });
const content = (text: string): Piece => ({ type: 'content', text });
const reasoning = (text: string): Piece => ({ type: 'reasoning', text });

describe('hermes', () => {
  const { create } = toolFamilies.hermes!;
  test.each<[string, Piece[]]>([
    ['a plain answer, 1 < 2', [content('a plain answer, 1 < 2')]],
    ['<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>', [call('f', { x: 1 })]],
    [
      'Let me look.\n<tool_call>{"name":"f","arguments":{}}</tool_call>\n<tool_call>{"name":"g","arguments":{"s":"}<"}}</tool_call>',
      [content('Let me look.'), call('f', {}), call('g', { s: '}<' })],
    ],
    ['<tool_call>{"name":"f","arguments":{}}', [call('f', {})]],
    ['<tool_call>not json</tool_call>', [content('<tool_call>not json</tool_call>')]],
    ['ends in <tool_', [content('ends in <tool_')]],
    ['two  words\n', [content('two  words\n')]],
  ])('%j', (text, expected) => expectPieces(create, text, expected));
});

describe('llama3', () => {
  const { create } = toolFamilies.llama3!;
  test.each<[string, Piece[]]>([
    ['Hello {you}', [content('Hello {you}')]],
    ['{"name": "f", "parameters": {"x": "a;b"}}', [call('f', { x: 'a;b' })]],
    [
      '<|python_tag|>{"name":"f","parameters":{}}; {"name":"g","parameters":{"y":[1]}}',
      [call('f', {}), call('g', { y: [1] })],
    ],
    ['{"not": "a call"}', [content('{"not": "a call"}')]],
    ['{"name": "f", "param', [content('{"name": "f", "param')]],
  ])('%j', (text, expected) => expectPieces(create, text, expected));
});

describe('mistral', () => {
  const { create } = toolFamilies.mistral!;
  test.each<[string, Piece[]]>([
    ['no calls [here]', [content('no calls [here]')]],
    [
      '[TOOL_CALLS][{"name": "f", "arguments": {"x": 1}}, {"name":"g","arguments":{}}]',
      [call('f', { x: 1 }), call('g', {})],
    ],
    ['Well. [TOOL_CALLS]f{"x": 2}', [content('Well. '), call('f', { x: 2 })]],
    ['[TOOL_CALLS]f[ARGS]{"x": 2}[TOOL_CALLS]g[ARGS]{}', [call('f', { x: 2 }), call('g', {})]],
    ['[TOOL_CALLS]broken', [content('[TOOL_CALLS]broken')]],
  ])('%j', (text, expected) => expectPieces(create, text, expected));
  test('ids are what its template accepts', () => expect(toolFamilies.mistral!.makeId()).toMatch(/^[A-Za-z0-9]{9}$/));
});

describe('gpt-oss', () => {
  const create = () => reasoningParser(reasoningFamilies['gpt-oss']!, '<|start|>assistant', plain);
  const final = '<|channel|>final<|message|>';
  test.each<[string, Piece[]]>([
    [
      `<|channel|>analysis<|message|>hm, <b> <|end|><|start|>assistant${final}Yes.`,
      [reasoning('hm, <b> '), content('Yes.')],
    ],
    [`${final}Yes.<|return|>`, [content('Yes.')]],
    ['no channels, 1 < 2 <| 3', [content('no channels, 1 < 2 <| 3')]],
    ['<|channel|>analysis<|message|>cut off', [reasoning('cut off')]],
    ['<|channel|>ana', []],
    [
      '<|channel|>analysis<|message|>f?<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"x": 1}<|call|>',
      [reasoning('f?'), call('f', { x: 1 })],
    ],
    [
      '<|channel|>commentary<|message|>Two looks.<|end|><|start|>assistant to=functions.g<|channel|>commentary<|message|>{}<|call|>',
      [content('Two looks.'), call('g', {})],
    ],
  ])('%j', (text, expected) => expectPieces(create, text, expected));
});

describe('reasoning', () => {
  const make = (family: string, prompt: string) => () => reasoningParser(reasoningFamilies[family]!, prompt, plain);
  test.each<[string, string, string, Piece[]]>([
    ['qwen3', '', '<think>\nhm\n</think>\n\nYes.', [reasoning('hm\n'), content('Yes.')]],
    ['qwen3', '', 'Yes, 3 < 4.', [content('Yes, 3 < 4.')]],
    ['qwen3', 'assistant\n<think>\n', 'hm</think>Yes.', [reasoning('hm'), content('Yes.')]],
    ['qwen3', 'assistant\n<think>\n\n</think>\n\n', 'Yes.', [content('Yes.')]],
    ['qwen3', '', '<think>cut off', [reasoning('cut off')]],
    ['deepseek-r1', '', 'hm</think>\n\nYes.', [reasoning('hm'), content('Yes.')]],
    ['deepseek-r1', '', '<think>\nhm</think>Yes.', [reasoning('hm'), content('Yes.')]],
  ])('%s after %j: %j', (family, prompt, text, expected) => expectPieces(make(family, prompt), text, expected));

  test('calls behind it are found', () => {
    const create = () => reasoningParser(reasoningFamilies.qwen3!, '', toolFamilies.hermes!.create());
    expectPieces(create, '<think>f?</think>\n<tool_call>{"name":"f","arguments":{}}</tool_call>', [
      reasoning('f?'),
      call('f', {}),
    ]);
  });
});
