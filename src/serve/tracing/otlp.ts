// Spans to an OpenTelemetry collector: OTLP over HTTP in its JSON form (https://opentelemetry.io/docs/specs/otlp/). The SDK would cost half of the install for this one message.
import type { Logger } from 'pino';
import { UsageError } from '../../base/errors.ts';
import { version } from '../../base/version.ts';

export type Attribute = string | number | boolean | readonly string[];

/** A span that is over. Times are milliseconds since the epoch. */
export interface Span {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly traceState?: string;
  readonly name: string;
  readonly kind: 'internal' | 'server';
  readonly start: number;
  readonly end: number;
  readonly attributes: Readonly<Record<string, Attribute | undefined>>;
  readonly events?: readonly { readonly name: string; readonly at: number }[];
  /** What went wrong, if something did. */
  readonly error?: string;
}

/** Where spans go. */
export interface ExporterOptions {
  /** The collector's URL; without a path, `/v1/traces` is meant. */
  readonly endpoint: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly logger?: Logger;
  /** Milliseconds between two messages; default 1000. */
  readonly interval?: number;
}

/** Spans that may wait; more are dropped, so that a collector that is away costs no memory. */
const most = 4096;
const kinds = { internal: 1, server: 2 } as const;

function value(attribute: Attribute): unknown {
  if (typeof attribute === 'string') return { stringValue: attribute };
  if (typeof attribute === 'boolean') return { boolValue: attribute };
  if (typeof attribute !== 'number') return { arrayValue: { values: attribute.map(value) } };
  return Number.isInteger(attribute) ? { intValue: String(attribute) } : { doubleValue: attribute };
}

function attributes(table: Span['attributes']): unknown[] {
  return Object.entries(table).flatMap(([key, attribute]) =>
    attribute === undefined ? [] : [{ key, value: value(attribute) }],
  );
}

/** Nanoseconds, which do not fit a double. */
function nanoseconds(milliseconds: number): string {
  return String(BigInt(Math.round(milliseconds * 1000)) * 1000n);
}

function encode(span: Span): Record<string, unknown> {
  const { traceId, spanId, parentSpanId, traceState, name, kind, start, end, events = [], error } = span;
  return {
    traceId,
    spanId,
    ...(parentSpanId === undefined ? {} : { parentSpanId }),
    ...(traceState === undefined ? {} : { traceState }),
    name,
    kind: kinds[kind],
    startTimeUnixNano: nanoseconds(start),
    endTimeUnixNano: nanoseconds(end),
    attributes: attributes(span.attributes),
    events: events.map((event) => ({ name: event.name, timeUnixNano: nanoseconds(event.at) })),
    status: error === undefined ? {} : { code: 2, message: error },
  };
}

function urlOf(endpoint: string): URL {
  try {
    const url = new URL(endpoint);
    if (!/^https?:$/.test(url.protocol)) throw new TypeError('not http');
    if (url.pathname === '/') url.pathname = '/v1/traces';
    return url;
  } catch (cause) {
    throw new UsageError('not a URL of a collector', {
      where: 'OTLP endpoint',
      expected: 'http://HOST:4318/v1/traces',
      got: endpoint,
      cause,
    });
  }
}

/** Collects spans and sends them in batches. Disposing it sends what is left. */
export class OtlpExporter implements AsyncDisposable {
  readonly #url: URL;
  readonly #options: ExporterOptions;
  #waiting: Span[] = [];
  #dropped = 0;
  #sending: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #complained = false;

  /** Throws UsageError for an endpoint that is no URL. */
  constructor(options: ExporterOptions) {
    this.#url = urlOf(options.endpoint);
    this.#options = options;
  }

  /**
   * Takes a span that is over.
   * @internal
   */
  add(span: Span): void {
    if (this.#waiting.length >= most) {
      this.#dropped++;
      return;
    }
    this.#waiting.push(span);
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => this.#flush(), this.#options.interval ?? 1000);
    this.#timer.unref();
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const spans = this.#waiting;
    this.#waiting = [];
    if (spans.length > 0) this.#sending = this.#sending.then(() => this.#send(spans));
  }

  async #send(spans: readonly Span[]): Promise<void> {
    const body = {
      resourceSpans: [
        {
          resource: { attributes: attributes({ 'service.name': 'typert', 'service.version': version }) },
          scopeSpans: [{ scope: { name: 'typert', version }, spans: spans.map(encode) }],
        },
      ],
    };
    try {
      const response = await fetch(this.#url, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...this.#options.headers },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(10_000),
      });
      await response.body?.cancel();
      if (!response.ok) throw new Error(`the collector answered ${response.status}`);
      this.#complained = false;
    } catch (err) {
      // Said once for each time that the collector goes away.
      if (!this.#complained)
        this.#options.logger?.warn({ err, spans: spans.length, dropped: this.#dropped }, 'spans lost');
      this.#complained = true;
    }
  }

  /** Sends what is left. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#flush();
    await this.#sending;
  }
}
