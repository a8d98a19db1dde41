// From any error to a status and a body: the one place where HTTP learns what went wrong. Each family of routes has its own body; the facts are the same.

import { ConfigError, type ErrorFacts, ExecutorError, RequestError, TypertError, UsageError } from '../base/errors.ts';

/** HTTP statuses of errors. */
export type Status = 400 | 401 | 403 | 404 | 405 | 408 | 409 | 413 | 415 | 429 | 499 | 500 | 501 | 503;

/** What a `ServeError` says beside its text. */
export interface ServeErrorFacts extends ErrorFacts {
  readonly status: Status;
  /** Machine-readable, e.g. 'model_not_found'. */
  readonly code?: string;
  /** The request's field at fault. */
  readonly param?: string;
  /** Seconds. */
  readonly retryAfter?: number;
}

/** A request that the server itself turns down. */
export class ServeError extends TypertError {
  readonly status: Status;
  readonly code: string | undefined;
  readonly param: string | undefined;
  readonly retryAfter: number | undefined;

  constructor(what: string, { status, code, param, retryAfter, ...facts }: ServeErrorFacts) {
    super(what, facts);
    this.status = status;
    this.code = code;
    this.param = param;
    this.retryAfter = retryAfter;
  }
}

/** A field that this server does not take (yet). */
export function refuseField(param: string, what: string, remedy?: string): never {
  throw new ServeError(what, {
    status: 400,
    code: 'unsupported_parameter',
    param,
    where: param,
    ...(remedy === undefined ? {} : { remedy }),
  });
}

/** What is told of an error. */
export interface HttpError {
  readonly status: Status;
  readonly message: string;
  readonly type: string;
  readonly code: string | null;
  readonly param: string | null;
  readonly retryAfter: number | undefined;
}

const typeOf: Readonly<Record<Status, string>> = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  405: 'invalid_request_error',
  408: 'timeout_error',
  409: 'conflict_error',
  413: 'request_too_large',
  415: 'invalid_request_error',
  429: 'rate_limit_error',
  499: 'client_closed_request',
  500: 'server_error',
  501: 'not_implemented_error',
  503: 'service_unavailable_error',
};

const fieldNames: Readonly<Record<string, string>> = {
  embeddingBias: 'logit_bias',
  promptTokenIds: 'prompt',
  promptLogprobs: 'logprobs',
  guidedDecoding: 'response_format',
};

/** samplingParams.topP → top_p: the name that the request used. */
function paramOf(where: string | undefined): string | null {
  if (where === undefined) return null;
  const name = where.replace(/^samplingParams\./, '').replace(/[[.:].*$/, '');
  if (!/^\w+$/.test(name)) return null;
  return fieldNames[name] ?? name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** The facts of any error. Errors that are not ours say nothing of the inside. */
export function toHttpError(error: unknown): HttpError {
  const make = (status: Status, message: string, rest: Partial<HttpError> = {}): HttpError => ({
    status,
    message,
    type: typeOf[status],
    code: null,
    param: null,
    retryAfter: undefined,
    ...rest,
  });
  if (error instanceof ServeError)
    return make(error.status, error.message, {
      code: error.code ?? null,
      param: error.param ?? null,
      retryAfter: error.retryAfter,
    });
  if (error instanceof RequestError) {
    const tooLong = /too long/.test(error.message);
    if (/too many requests are open/.test(error.message))
      return make(429, error.message, { code: 'queue_full', retryAfter: 1 });
    const param = paramOf(error.where);
    // The request's own name of the field, not the one it has inside.
    const message = param === null ? error.message : error.message.replace(/^samplingParams\.\w+/, param);
    return make(400, message, {
      param,
      code: tooLong ? 'context_length_exceeded' : 'invalid_value',
    });
  }
  if (error instanceof UsageError || error instanceof ConfigError) return make(400, error.message);
  if (error instanceof ExecutorError)
    return make(503, 'the engine is not available; the request was not completed', {
      code: 'engine_unavailable',
      retryAfter: 1,
    });
  if (error instanceof Error && (error.name === 'AbortError' || error.name === 'ResponseAborted'))
    return make(499, 'the client went away', { code: 'client_closed_request' });
  return make(500, 'internal error; the log has the details under this request id', { code: 'internal_error' });
}

export type ErrorBody = (error: HttpError) => Record<string, unknown>;

/** `{ error: { message, type, param, code } }`, as OpenAI's clients read it. */
export const openaiError: ErrorBody = ({ message, type, param, code }) => ({ error: { message, type, param, code } });

/** Anthropic's clients tell errors apart by `error.type`. */
export const anthropicError: ErrorBody = ({ status, message, type }) => ({
  type: 'error',
  error: { type: status === 503 ? 'overloaded_error' : status >= 500 ? 'api_error' : type, message },
});

/** Ollama and KServe carry a text. */
export const textError: ErrorBody = ({ message }) => ({ error: message });

/** The form of errors under a path. */
export function errorBodyOf(path: string): ErrorBody {
  if (path.startsWith('/v1/messages')) return anthropicError;
  if (path.startsWith('/api/') || path.startsWith('/v2')) return textError;
  return openaiError;
}
