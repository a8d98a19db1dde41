// Inference requests and responses as HTTP carries them: JSON, JSON with binary tensors behind it, and the flat JSON of the generate extension.

import { z } from 'zod';
import { ServeError } from '../errors.ts';
import { check } from '../http.ts';
import type { InferRequest } from './request.ts';
import type { ModelSpec } from './specs.ts';
import {
  type Element,
  elementToJson,
  fromBytes,
  fromJson,
  isDatatype,
  sizeOf,
  type Tensor,
  toBytes,
  toElement,
} from './tensors.ts';

const parameters = z.record(z.string(), z.unknown()).nullish();
/** The JSON of an inference request. */
export const inferSchema = z.looseObject({
  id: z.string().nullish(),
  parameters,
  inputs: z.array(
    z.looseObject({
      name: z.string(),
      datatype: z.string().refine(isDatatype, 'not a datatype of the protocol'),
      shape: z.array(z.int().min(0)),
      parameters,
      data: z.unknown().optional(),
    }),
  ),
  outputs: z.array(z.looseObject({ name: z.string(), parameters })).nullish(),
});

/** The JSON of the generate extension. */
export const generateSchema = z.looseObject({ id: z.string().nullish(), parameters });

export interface WireRequest extends InferRequest {
  /** Whether an output goes back as bytes. */
  readonly binary: (name: string) => boolean;
}

function parse(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes)) as unknown;
  } catch (cause) {
    throw new ServeError('the header is not JSON', { status: 400, code: 'invalid_json', cause });
  }
}

/** Reads a body whose first `headerLength` bytes are JSON. Throws ServeError 400. */
export function readInfer(body: Uint8Array, headerLength: string | undefined): WireRequest {
  const length = headerLength === undefined ? body.length : Number(headerLength);
  if (!Number.isInteger(length) || length < 0 || length > body.length)
    throw new ServeError('not the length of the header', {
      status: 400,
      where: 'inference-header-content-length',
      expected: `at most ${body.length}`,
      got: String(headerLength),
    });
  const header = check(inferSchema, parse(body.subarray(0, length)));
  let at = length;
  const inputs = header.inputs.map((input): Tensor => {
    const { name, datatype, shape, data } = input;
    const count = sizeOf(shape, name);
    const size = input.parameters?.binary_data_size;
    if (size === undefined) return { name, datatype, shape, data: fromJson(datatype, count, data, name) };
    if (typeof size !== 'number' || !Number.isInteger(size) || size < 0 || at + size > body.length)
      throw new ServeError('fewer bytes than binary_data_size says', { status: 400, where: name });
    const bytes = body.subarray(at, at + size);
    at += size;
    return { name, datatype, shape, data: fromBytes(datatype, count, bytes, name) };
  });
  if (at !== body.length) throw new ServeError('bytes that belong to no input', { status: 400, where: 'body' });
  const outputs = new Map(header.outputs?.map(({ name, parameters: own }) => [name, own?.binary_data === true]));
  const all = header.parameters?.binary_data_output === true;
  return {
    id: header.id ?? '',
    inputs,
    wanted: header.outputs && header.outputs.length > 0 ? [...outputs.keys()] : undefined,
    binary: (name) => outputs.get(name) ?? all,
  };
}

/** A response of a stream: JSON alone. */
export function writeInferEvent(model: string, id: string, tensors: readonly Tensor[]): Record<string, unknown> {
  const outputs = tensors.map(({ name, datatype, shape, data }) => ({
    name,
    datatype,
    shape,
    data: data.map(elementToJson),
  }));
  return { model_name: model, model_version: '1', ...(id === '' ? {} : { id }), outputs };
}

/** The response to an inference request. */
export function writeInfer(model: string, { id, binary }: WireRequest, tensors: readonly Tensor[]): Response {
  const parts: Uint8Array[] = [];
  const outputs = tensors.map(({ name, datatype, shape, data }) => {
    if (!binary(name)) return { name, datatype, shape, data: data.map(elementToJson) };
    const bytes = toBytes({ datatype, data });
    parts.push(bytes);
    return { name, datatype, shape, parameters: { binary_data_size: bytes.length } };
  });
  const header = Buffer.from(
    JSON.stringify({ model_name: model, model_version: '1', ...(id === '' ? {} : { id }), outputs }),
  );
  if (parts.length === 0) return new Response(header, { headers: { 'content-type': 'application/json' } });
  return new Response(Buffer.concat([header, ...parts]), {
    headers: { 'content-type': 'application/octet-stream', 'inference-header-content-length': String(header.length) },
  });
}

/** A request of the generate extension: inputs by name, as scalars or lists; unknown names are parameters and left alone. */
export function readGenerate(body: unknown, { inputs: specs }: ModelSpec): InferRequest {
  const { id, parameters: nested, ...flat } = check(generateSchema, body);
  const given = new Map(Object.entries({ ...nested, ...flat }));
  const inputs = specs.flatMap(({ name, datatype, dims }): Tensor[] => {
    const value = given.get(name);
    if (value === undefined || value === null) return [];
    const list = Array.isArray(value) ? (value as unknown[]) : [value];
    // Words may be given as one text.
    const data = list.map((element): Element => toElement(datatype, element, name));
    const shape = dims.length === 1 ? [1, data.length] : [1, dims[0]!, data.length / dims[0]!];
    return [{ name, datatype, shape, data }];
  });
  // Token ids say their own length.
  const ids = inputs.find(({ name }) => name === 'input_ids');
  if (ids !== undefined && !given.has('input_lengths'))
    inputs.push({ name: 'input_lengths', datatype: 'INT32', shape: [1, 1], data: [ids.data.length] });
  return { id: id ?? '', inputs, wanted: undefined };
}

/** A response of the generate extension. */
export function writeGenerate(model: string, id: string, tensors: readonly Tensor[]): Record<string, unknown> {
  const outputs = tensors.map(({ name, data }) => [
    name,
    data.length === 1 ? elementToJson(data[0]!) : data.map(elementToJson),
  ]);
  return { model_name: model, model_version: '1', ...(id === '' ? {} : { id }), ...Object.fromEntries(outputs) };
}
