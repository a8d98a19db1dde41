// gRPC over HTTP/2 (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md): messages in frames of five bytes and their content, the outcome in trailers. It knows no
// service; `service.ts` gives it methods.

import {
  createSecureServer,
  createServer,
  type Http2SecureServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2';
import { gunzipSync } from 'node:zlib';
import { type HttpError, ServeError, type Status, toHttpError } from '../errors.ts';
import { decode, encode, type Message, ProtobufError, type Schema } from './protobuf.ts';

export interface Call {
  readonly headers: IncomingHttpHeaders;
  /** Aborted when the client cancels, its deadline passes or the connection ends. */
  readonly signal: AbortSignal;
  readonly abort: (reason?: unknown) => void;
}

export interface Method {
  readonly request: Schema;
  readonly response: Schema;
  readonly handle: (requests: AsyncGenerator<Message>, call: Call) => AsyncGenerator<Message>;
}

/** A method with one request and one response. */
export function unary(
  request: Schema,
  response: Schema,
  answer: (message: Message, call: Call) => Message | Promise<Message>,
): Method {
  return {
    request,
    response,
    async *handle(requests, call) {
      for await (const message of requests) {
        yield await answer(message, call);
        return;
      }
      throw new ServeError('a call without a request', { status: 400 });
    },
  };
}

/** gRPC's codes of HTTP's statuses. */
export const codes: Readonly<Record<Status, number>> = {
  400: 3,
  401: 16,
  403: 7,
  404: 5,
  405: 12,
  408: 4,
  409: 10,
  413: 8,
  415: 12,
  429: 8,
  499: 1,
  500: 13,
  501: 12,
  503: 14,
};

export interface GrpcOptions {
  /** By path: '/package.Service/Method'. */
  readonly methods: ReadonlyMap<string, Method>;
  readonly maxMessageSize: number;
  /** Throws to turn a call away before it is read. */
  readonly admit: (path: string, headers: IncomingHttpHeaders) => void;
  readonly failed: (error: unknown, facts: HttpError) => void;
  readonly tls?: { readonly cert: Buffer; readonly key: Buffer };
}

const units: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 0.001, n: 0.000001 };

/** Milliseconds of a grpc-timeout header. */
function timeoutOf(header: string | undefined): number | undefined {
  const match = /^(\d{1,8})([HMSmun])$/.exec(header ?? '');
  return match === null ? undefined : Math.min(Number(match[1]) * units[match[2]!]!, 2 ** 31 - 1);
}

function unpack(bytes: Uint8Array, maxOutputLength: number): Uint8Array {
  try {
    return gunzipSync(bytes, { maxOutputLength });
  } catch (cause) {
    const large = (cause as { code?: string }).code === 'ERR_BUFFER_TOO_LARGE';
    throw new ServeError(large ? 'the message is too large' : 'the message is not gzip', {
      status: large ? 413 : 400,
      ...(large ? { expected: `${maxOutputLength} bytes` } : {}),
      cause,
    });
  }
}

/** The messages that a client sends. Throws ServeError for frames that cannot be. */
async function* messages(stream: ServerHttp2Stream, schema: Schema, options: GrpcOptions, encoding: string) {
  let held: Buffer = Buffer.alloc(0);
  // A method that has read enough must still be able to answer.
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) {
    held = held.length === 0 ? (chunk as Buffer) : Buffer.concat([held, chunk as Buffer]);
    while (held.length >= 5) {
      const length = held.readUInt32BE(1);
      if (length > options.maxMessageSize)
        throw new ServeError('the message is too large', { status: 413, expected: `${options.maxMessageSize} bytes` });
      if (held.length < 5 + length) break;
      let bytes: Uint8Array = held.subarray(5, 5 + length);
      if (held[0] === 1) {
        if (encoding !== 'gzip') throw new ServeError(`encoding '${encoding}' is not supported`, { status: 501 });
        bytes = unpack(bytes, options.maxMessageSize);
      }
      held = held.subarray(5 + length);
      yield decode(schema, bytes);
    }
  }
  if (held.length > 0) throw new ServeError('the stream ends in mid-message', { status: 400 });
}

/** Printable ASCII stays; the rest is written as the bytes of its UTF-8. */
function percent(text: string): string {
  return text.replace(/\p{Surrogate}/gu, '\ufffd').replace(/[^ -$&-~]+/g, encodeURIComponent);
}

function frame(bytes: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

function facts(error: unknown): HttpError {
  if (error instanceof ProtobufError) return toHttpError(new ServeError((error as Error).message, { status: 400 }));
  return toHttpError(error);
}

async function serve(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, options: GrpcOptions): Promise<void> {
  const controller = new AbortController();
  const leave = (): void => controller.abort(new DOMException('the call ended', 'AbortError'));
  stream.on('aborted', leave);
  stream.on('close', leave);
  stream.on('error', leave);
  const path = String(headers[':path']);
  const milliseconds = timeoutOf(headers['grpc-timeout'] as string | undefined);
  let late = false;
  const timer =
    milliseconds === undefined
      ? undefined
      : setTimeout(() => {
          late = true;
          leave();
        }, milliseconds);
  let code = 0;
  let message = '';
  let open = true;
  stream.on('wantTrailers', () => {
    stream.sendTrailers({
      'grpc-status': String(code),
      ...(message === '' ? {} : { 'grpc-message': percent(message) }),
    });
  });
  try {
    if (!String(headers['content-type']).startsWith('application/grpc')) {
      stream.respond({ ':status': 415 }, { endStream: true });
      open = false;
      return;
    }
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    options.admit(path, headers);
    const method = options.methods.get(path);
    if (method === undefined) throw new ServeError(`there is no method ${path}`, { status: 501 });
    const encoding = String(headers['grpc-encoding'] ?? 'identity');
    const requests = messages(stream, method.request, options, encoding);
    const call: Call = { headers, signal: controller.signal, abort: (reason) => controller.abort(reason) };
    for await (const response of method.handle(requests, call)) {
      if (stream.destroyed) return;
      // A reader that is slow holds the source.
      if (!stream.write(frame(encode(method.response, response))))
        await new Promise<void>((resolve) => {
          stream.once('drain', resolve);
          stream.once('close', resolve);
        });
    }
  } catch (error) {
    const told = facts(error);
    code = late ? 4 : codes[told.status];
    message = late ? 'the deadline passed' : told.message;
    if (!late) options.failed(error, told);
  } finally {
    clearTimeout(timer);
    controller.abort(new DOMException('the call ended', 'AbortError'));
    if (open && !stream.destroyed) stream.end();
  }
}

/** A server that does not listen yet. */
export function createGrpcServer(options: GrpcOptions): Http2Server | Http2SecureServer {
  const { tls } = options;
  const settings = { maxConcurrentStreams: 1000 };
  const server =
    tls === undefined ? createServer({ settings }) : createSecureServer({ settings, cert: tls.cert, key: tls.key });
  server.on('stream', (stream, headers) => {
    void serve(stream, headers, options).catch(() => stream.destroy());
  });
  // Broken connections and bytes that are no HTTP/2 are the client's affair.
  server.on('sessionError', () => {});
  return server;
}
