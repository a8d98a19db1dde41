// One request as OpenTelemetry sees it: a server span under the caller's (W3C traceparent), and below it a span for each generation, in the words of the GenAI conventions.
// Prompts and answers are in neither.
import { performance } from 'node:perf_hooks';
import type { Observer, RequestFacts } from '../model.ts';
import type { OtlpExporter } from './otlp.ts';

/** Where a request comes from. */
interface Parent {
  readonly traceId: string;
  readonly spanId: string | undefined;
  readonly sampled: boolean;
}

function hex(bytes: number): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString('hex');
}

/** Reads a traceparent header (https://www.w3.org/TR/trace-context); undefined when it is none. */
export function readTraceparent(header: string | undefined): Parent | undefined {
  const match = /^([\da-f]{2})-([\da-f]{32})-([\da-f]{16})-([\da-f]{2})(-.*)?$/.exec(header?.trim() ?? '');
  if (match === null) return undefined;
  const [, format, traceId, spanId, flags, rest] = match;
  const nothing = /^0+$/.test(traceId!) || /^0+$/.test(spanId!);
  // A later format may have more behind; this one may not.
  if (nothing || format === 'ff' || (format === '00' && rest !== undefined)) return undefined;
  return { traceId: traceId!, spanId: spanId!, sampled: (Number.parseInt(flags!, 16) & 1) === 1 };
}

const epoch = (time: number): number => performance.timeOrigin + time;

/** What a protocol does, by GenAI's names. */
export function operationOf(path: string): string {
  return /chat|messages|responses/.test(path) ? 'chat' : 'text_completion';
}

export interface TraceFacts {
  /** E.g. 'POST /v1/chat/completions'. */
  readonly name: string;
  readonly operation: string;
  readonly traceparent: string | undefined;
  readonly tracestate?: string | undefined;
  readonly attributes: Readonly<Record<string, string | number | undefined>>;
}

/** A request that is being traced. */
export class Trace implements Observer {
  readonly #exporter: OtlpExporter;
  readonly #facts: TraceFacts;
  readonly #parent: Parent;
  readonly #spanId = hex(8);
  readonly #started = performance.now();
  #open = 0;
  #answered: { readonly status: Readonly<Record<string, number>>; readonly error: string | undefined } | undefined;
  #ended = false;

  constructor(exporter: OtlpExporter, facts: TraceFacts) {
    this.#exporter = exporter;
    this.#facts = facts;
    this.#parent = readTraceparent(facts.traceparent) ?? { traceId: hex(16), spanId: undefined, sampled: true };
  }

  requestStarted(): void {
    this.#open++;
  }

  requestEnded(facts: RequestFacts): void {
    this.#open--;
    const { model, params, started, firstToken, ended, promptTokens, completionTokens, outcome } = facts;
    const { operation } = this.#facts;
    this.#add({
      spanId: hex(8),
      parentSpanId: this.#spanId,
      name: `${operation} ${model}`,
      kind: 'internal',
      start: epoch(started),
      end: epoch(ended),
      attributes: {
        'gen_ai.operation.name': operation,
        'gen_ai.provider.name': 'typert',
        'gen_ai.request.model': model,
        'gen_ai.response.model': model,
        'gen_ai.request.max_tokens': params.maxTokens,
        'gen_ai.request.temperature': params.temperature,
        'gen_ai.request.top_p': params.topP,
        'gen_ai.request.top_k': params.topK,
        'gen_ai.request.choice.count': params.n,
        'gen_ai.usage.input_tokens': promptTokens,
        'gen_ai.usage.output_tokens': completionTokens,
        'gen_ai.response.finish_reasons': [outcome],
        'gen_ai.latency.e2e': (ended - started) / 1000,
        'gen_ai.latency.time_to_first_token': firstToken === undefined ? undefined : (firstToken - started) / 1000,
      },
      ...(firstToken === undefined ? {} : { events: [{ name: 'first token', at: epoch(firstToken) }] }),
      ...(outcome === 'error' ? { error: 'the engine failed' } : {}),
    });
    this.#endWhenDone();
  }

  /** The answer is made; a stream may still go on. */
  answered(status: Readonly<Record<string, number>>, error: string | undefined): void {
    this.#answered = { status, error };
    this.#endWhenDone();
  }

  #endWhenDone(): void {
    if (this.#answered === undefined || this.#open > 0 || this.#ended) return;
    this.#ended = true;
    const { status, error } = this.#answered;
    const { spanId } = this.#parent;
    this.#add({
      spanId: this.#spanId,
      ...(spanId === undefined ? {} : { parentSpanId: spanId }),
      name: this.#facts.name,
      kind: 'server',
      start: epoch(this.#started),
      end: epoch(performance.now()),
      attributes: { ...this.#facts.attributes, ...status },
      ...(error === undefined ? {} : { error }),
    });
  }

  #add(span: Omit<Parameters<OtlpExporter['add']>[0], 'traceId'>): void {
    const { traceId, sampled } = this.#parent;
    const { tracestate } = this.#facts;
    if (sampled)
      this.#exporter.add({ traceId, ...(tracestate === undefined ? {} : { traceState: tracestate }), ...span });
  }
}
