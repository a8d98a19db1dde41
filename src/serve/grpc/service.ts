// The KServe v2 gRPC service (inference.GRPCInferenceService) and gRPC's health check, over the same inference as the HTTP routes.

import type { IncomingHttpHeaders } from 'node:http2';
import { fitsKey } from '../auth.ts';
import { ServeError, toHttpError } from '../errors.ts';
import { makeId, type Scope } from '../http.ts';
import type { Inference } from '../kserve/infer.ts';
import type { InferRequest } from '../kserve/request.ts';
import { repositoryIndex, serverMetadata } from '../kserve/routes.ts';
import { config, metadata } from '../kserve/specs.ts';
import { type Element, fromBytes, isDatatype, sizeOf, type Tensor, toBytes } from '../kserve/tensors.ts';
import { allOf, type Observer } from '../model.ts';
import type { OtlpExporter } from '../tracing/otlp.ts';
import { Trace } from '../tracing/trace.ts';
import type { Message } from './protobuf.ts';
import * as schema from './schema.ts';
import { type Call, codes, type Method, unary } from './server.ts';

export interface ServiceOptions {
  readonly inference: Inference;
  readonly observer: Observer;
  readonly apiKeys: readonly string[];
  readonly draining: () => boolean;
  readonly tracing?: OtlpExporter | undefined;
}

type Wire = {
  readonly name?: string;
  readonly datatype?: string;
  readonly shape: readonly number[];
  readonly contents?: Readonly<Record<string, readonly Element[]>>;
};

const utf8 = new TextDecoder();

function elements({ contents = {} }: Wire, count: number, where: string): Element[] {
  const all = Object.entries(contents).filter(([, list]) => list.length > 0);
  const [field, list = []] = all[0] ?? [];
  if (all.length > 1 || list.length !== count)
    throw new ServeError('data and shape disagree', {
      status: 400,
      where,
      expected: `${count} elements`,
      got: `${list.length}`,
    });
  return field === 'bytes_contents' ? list.map((bytes) => utf8.decode(bytes as unknown as Uint8Array)) : [...list];
}

/** A request as it came over the wire. Throws ServeError 400. */
function readRequest(message: Message): InferRequest {
  const inputs = message.inputs as readonly Wire[];
  const raw = message.raw_input_contents as readonly Uint8Array[];
  if (raw.length > 0 && raw.length !== inputs.length)
    throw new ServeError('not one raw content an input', {
      status: 400,
      where: 'raw_input_contents',
      expected: String(inputs.length),
      got: String(raw.length),
    });
  const outputs = message.outputs as readonly { readonly name?: string }[];
  return {
    id: String(message.id ?? ''),
    inputs: inputs.map((input, i): Tensor => {
      const { name = '', datatype = '', shape } = input;
      if (!isDatatype(datatype))
        throw new ServeError('not a datatype of the protocol', { status: 400, where: name, got: datatype });
      const count = sizeOf(shape, name);
      const bytes = raw[i];
      const data = bytes === undefined ? elements(input, count, name) : fromBytes(datatype, count, bytes, name);
      return { name, datatype, shape, data };
    }),
    wanted: outputs.length === 0 ? undefined : outputs.map(({ name = '' }) => name),
  };
}

function writeResponse(message: Message, tensors: readonly Tensor[], final?: boolean): Message {
  return {
    model_name: message.model_name,
    model_version: '1',
    id: message.id,
    ...(final === undefined ? {} : { parameters: new Map([['triton_final_response', { bool_param: final }]]) }),
    outputs: tensors.map(({ name, datatype, shape }) => ({ name, datatype, shape })),
    raw_output_contents: tensors.map(toBytes),
  };
}

/** Several sources at once; each item as it comes. */
class Channel<T> {
  readonly #items: T[] = [];
  #wake: () => void = () => {};
  #open = 1;

  /** Reads a source into the channel. What it holds is bounded: a source waits until the reader has caught up. */
  async feed(source: AsyncGenerator<T>): Promise<void> {
    this.#open++;
    try {
      for await (const item of source) {
        this.#items.push(item);
        this.#wake();
        while (this.#items.length > 64) await new Promise((resolve) => setTimeout(resolve, 5));
      }
    } finally {
      this.close();
    }
  }

  close(): void {
    this.#open--;
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      while (this.#items.length > 0) yield this.#items.shift()!;
      if (this.#open === 0) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

export function createService(options: ServiceOptions): {
  readonly methods: ReadonlyMap<string, Method>;
  readonly admit: (path: string, headers: IncomingHttpHeaders) => void;
} {
  const { inference, observer, apiKeys } = options;
  const { registry } = inference;
  const traceOf = ({ headers }: Call, method: string): Trace | undefined => {
    const header = (name: string): string | undefined => headers[name]?.toString();
    return (
      options.tracing &&
      new Trace(options.tracing, {
        name: `inference.GRPCInferenceService/${method}`,
        operation: 'text_completion',
        traceparent: header('traceparent'),
        tracestate: header('tracestate'),
        attributes: { 'rpc.system': 'grpc', 'rpc.service': 'inference.GRPCInferenceService', 'rpc.method': method },
      })
    );
  };
  const scopeOf = (call: Call, trace: Trace | undefined): Scope => ({
    id: makeId('req_'),
    signal: call.signal,
    abort: call.abort,
    observer: trace === undefined ? observer : allOf([observer, trace]),
    maxBodySize: 0,
  });
  /** Runs one inference; its trace learns how it went. */
  async function* infer(message: Message, call: Call, mode: 'whole' | 'decoupled'): AsyncGenerator<Tensor[]> {
    const trace = traceOf(call, mode === 'whole' ? 'ModelInfer' : 'ModelStreamInfer');
    try {
      yield* inference.run(target(message), readRequest(message), scopeOf(call, trace), mode);
      trace?.answered({ 'rpc.grpc.status_code': 0 }, undefined);
    } catch (error) {
      const { status, message: what } = toHttpError(error);
      trace?.answered({ 'rpc.grpc.status_code': codes[status] }, what);
      throw error;
    }
  }
  const target = ({ model_name: name = '', model_version: version = '' }: Message) =>
    inference.find(String(name), String(version));
  const ready = () => registry.ready && !options.draining();

  async function* one(message: Message, call: Call): AsyncGenerator<Message> {
    const parameters = message.parameters as ReadonlyMap<string, { bool_param?: boolean }>;
    const withFinal = parameters.get('triton_enable_empty_final_response')?.bool_param === true;
    try {
      for await (const tensors of infer(message, call, 'decoupled'))
        yield { infer_response: writeResponse(message, tensors, withFinal ? false : undefined) };
      if (withFinal) yield { infer_response: writeResponse(message, [], true) };
    } catch (error) {
      // One request's failure is not the stream's.
      yield { error_message: toHttpError(error).message, infer_response: { id: message.id } };
    }
  }

  const stream: Method = {
    request: schema.inferRequest,
    response: schema.streamResponse,
    async *handle(requests, call) {
      const channel = new Channel<Message>();
      let failure: unknown;
      const reading = (async () => {
        try {
          for await (const message of requests) void channel.feed(one(message, call));
        } catch (error) {
          failure = error;
          call.abort(error);
        } finally {
          channel.close();
        }
      })();
      yield* channel;
      await reading;
      if (failure !== undefined) throw failure;
    },
  };

  const service: Readonly<Record<string, Method>> = {
    ServerLive: unary(schema.empty, schema.live, () => ({ live: true })),
    ServerReady: unary(schema.empty, schema.ready, () => ({ ready: ready() })),
    ModelReady: unary(schema.named, schema.ready, ({ name, version }) => ({
      ready: target({ model_name: name, model_version: version }).model.state === 'ready',
    })),
    ServerMetadata: unary(schema.empty, schema.serverMetadata, () => serverMetadata),
    ModelMetadata: unary(schema.named, schema.modelMetadata, ({ name, version }) => {
      const found = target({ model_name: name, model_version: version });
      return metadata(found.name, found.spec);
    }),
    ModelConfig: unary(schema.named, schema.modelConfig, ({ name, version }) => {
      const found = target({ model_name: name, model_version: version });
      const made = config(found.name, found.spec, found.model);
      const typed = (list: unknown) =>
        (list as { data_type: string }[]).map((entry) => ({ ...entry, data_type: schema.dataTypes[entry.data_type] }));
      return { config: { ...made, input: typed(made.input), output: typed(made.output) } };
    }),
    ModelStatistics: unary(schema.named, schema.statistics, ({ name }) => ({
      model_stats: inference.targets
        .filter((found) => name === undefined || name === '' || found.name === name)
        .map((found) => inference.statistics.of(found.name)),
    })),
    RepositoryIndex: unary(schema.indexRequest, schema.index, ({ ready: only }) => ({
      models: repositoryIndex(inference, only === true),
    })),
    RepositoryModelLoad: unary(schema.repositoryModel, schema.empty, async (message) => {
      await target(message).model.load();
      return {};
    }),
    RepositoryModelUnload: unary(schema.repositoryModel, schema.empty, async (message) => {
      await target(message).model.unload();
      return {};
    }),
    ModelInfer: unary(schema.inferRequest, schema.inferResponse, async (message, call) => {
      let last: Tensor[] = [];
      for await (const tensors of infer(message, call, 'whole')) last = tensors;
      return writeResponse(message, last);
    }),
    ModelStreamInfer: stream,
  };
  const methods = new Map(
    Object.entries(service).map(([name, method]) => [`/inference.GRPCInferenceService/${name}`, method]),
  );
  methods.set(
    '/grpc.health.v1.Health/Check',
    unary(schema.healthCheck, schema.healthStatus, () => ({ status: ready() ? 1 : 2 })),
  );
  // Probes carry no key.
  const open = new Set(['ServerLive', 'ServerReady', 'Check']);
  return {
    methods,
    admit: (path, headers) => {
      const name = path.split('/').at(-1) ?? '';
      if (apiKeys.length > 0 && !open.has(name)) fitsKey(apiKeys, headers.authorization, headers['x-api-key']);
      if (options.draining() && /Infer$/.test(name))
        throw new ServeError('the server is ending', { status: 503, retryAfter: 5 });
    },
  };
}
