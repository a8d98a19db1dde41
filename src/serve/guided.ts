// What an answer has to be: from the fields by which requests say so (OpenAI's response_format, TensorRT-LLM's and vLLM's guided_*, a chosen tool) to guided decoding.

import type { GuidedDecodingParams } from '../run/decode/sampling-params.ts';
import { refuseField, ServeError } from './errors.ts';
import { type OutputParser, parseJson, toToolCall } from './parsers/pieces.ts';

type Json = Readonly<Record<string, unknown>>;

function isJson(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function text(value: unknown, param: string): string {
  return typeof value === 'string' ? value : refuseField(param, 'expected a text');
}

function schemaOf(value: unknown, param: string): Json | string {
  return typeof value === 'string' || isJson(value) ? value : refuseField(param, 'expected a JSON schema');
}

/** Texts of which one is the answer. */
function choice(value: unknown, param: string): string {
  if (!Array.isArray(value) || value.length === 0) return refuseField(param, 'expected a list of texts');
  const escaped = value.map((one) => text(one, param).replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&'));
  return `(${escaped.join('|')})`;
}

/** `response_format`, in OpenAI's types and TensorRT-LLM's. */
export function fromResponseFormat(format: unknown, param = 'response_format'): GuidedDecodingParams | undefined {
  if (format === undefined || format === null) return undefined;
  const { type, json_schema: wrapped, schema, regex, ebnf } = isJson(format) ? format : {};
  switch (type) {
    case 'text':
      return undefined;
    case 'json_object':
      return { jsonObject: true };
    case 'json_schema': {
      const inner = isJson(wrapped) && 'schema' in wrapped ? wrapped.schema : (wrapped ?? schema);
      return { json: schemaOf(inner, `${param}.json_schema`) };
    }
    case 'json':
      return { json: schemaOf(schema, `${param}.schema`) };
    case 'regex':
      return { regex: text(regex, `${param}.regex`) };
    case 'ebnf':
      return { grammar: text(ebnf, `${param}.ebnf`) };
    case 'structural_tag':
      return { structuralTag: format as Json };
    default:
      return refuseField(param, `unknown type '${String(type)}'`);
  }
}

/** Everything in a request that says what the answer has to be. Throws ServeError 400 when it says two things. */
export function guidedOf(body: Json): GuidedDecodingParams | undefined {
  const given = (name: string): boolean => body[name] !== undefined && body[name] !== null;
  const nested = isJson(body.structured_outputs) ? body.structured_outputs : {};
  const from = (name: string, make: (value: unknown, param: string) => GuidedDecodingParams) => [
    ...(given(name) ? [make(body[name], name)] : []),
    ...(nested[name.slice('guided_'.length)] === undefined
      ? []
      : [make(nested[name.slice('guided_'.length)], 'structured_outputs')]),
  ];
  const all = [
    ...[fromResponseFormat(body.response_format)].filter((found) => found !== undefined),
    ...from('guided_json', (value, param) => ({ json: schemaOf(value, param) })),
    ...from('guided_regex', (value, param) => ({ regex: text(value, param) })),
    ...from('guided_choice', (value, param) => ({ regex: choice(value, param) })),
    ...from('guided_grammar', (value, param) => ({ grammar: text(value, param) })),
  ];
  if (all.length > 1)
    throw new ServeError('the answer cannot be two things', {
      status: 400,
      code: 'invalid_value',
      expected: 'one of response_format, guided_json, guided_regex, guided_choice, guided_grammar',
    });
  return all[0];
}

/** A call that the model has to make: of one tool, or of some. */
export type ForcedCall = { readonly kind: 'named'; readonly name: string } | { readonly kind: 'required' };

function functionOf(tool: Json): { name: string; parameters: Json } {
  const { name, parameters } = isJson(tool.function) ? tool.function : {};
  return { name: String(name), parameters: isJson(parameters) ? parameters : { type: 'object' } };
}

/** The JSON that makes a call happen: the arguments of a named tool, or a list of calls. */
export function guideOfCall(forced: ForcedCall, tools: readonly Json[], parallel: boolean): GuidedDecodingParams {
  const known = tools.map(functionOf);
  if (forced.kind === 'named') {
    const found = known.find(({ name }) => name === forced.name);
    if (found === undefined) refuseField('tool_choice', `there is no tool '${forced.name}'`);
    return { json: found.parameters };
  }
  if (known.length === 0) refuseField('tool_choice', 'there are no tools to call');
  const items = known.map(({ name, parameters }) => ({
    type: 'object',
    properties: { name: { const: name }, arguments: parameters },
    required: ['name', 'arguments'],
    additionalProperties: false,
  }));
  return { json: { type: 'array', items: { anyOf: items }, minItems: 1, ...(parallel ? {} : { maxItems: 1 }) } };
}

/** Reads an answer that was guided to be a call. One that was cut off is given as far as it goes. */
export function forcedParser(forced: ForcedCall): OutputParser {
  let held = '';
  return {
    push: (more) => {
      held += more;
      return [];
    },
    end: () => {
      if (forced.kind === 'named') {
        const parsed = parseJson(held);
        const args = parsed === undefined ? held : JSON.stringify(parsed);
        return [{ type: 'toolCall', name: forced.name, arguments: args }];
      }
      const list = parseJson(held);
      const calls = Array.isArray(list) ? list.map(toToolCall).filter((call) => call !== undefined) : [];
      return calls.length > 0 || held === '' ? calls : [{ type: 'content', text: held }];
    },
  };
}
