// The numbers of a server for Prometheus. The `trtllm_*` names and their meaning are those of TensorRT-LLM's server, so that its dashboards and gateways fit;
// `typert_*` are ours.
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry as Numbers } from '@platformatic/prom-client';
import type { ExecutorStatistics } from '../../run/executor/statistics.ts';
import type { ModelState, Observer, RequestFacts } from '../model.ts';
import { EngineMetrics } from './engine.ts';

const label = 'model_name';
/** Seconds: latencies of whole requests. */
const long = [0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920];
/** Seconds: until the first token. */
const first = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160];
/** Seconds: from token to token. */
const between = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10];

/** The numbers of one server. */
export class Metrics implements Observer {
  readonly #numbers = new Numbers();
  readonly #engine = new EngineMetrics(this.#numbers, label);
  readonly #success = this.#counter('trtllm_request_success_total', 'Requests that ended well, by how.', [
    'finished_reason',
  ]);
  readonly #errors = new Counter({
    name: 'trtllm_request_error_total',
    help: 'Requests answered with an error, by HTTP status.',
    labelNames: ['http_code'],
    registers: [this.#numbers],
  });
  readonly #cancelled = this.#counter('typert_request_cancelled_total', 'Requests whose client left.');
  readonly #failed = this.#counter('typert_request_failed_total', 'Requests that the engine ended with an error.');
  readonly #open = this.#gauge('typert_requests_open', 'Requests in hand.');
  readonly #ready = this.#gauge('typert_model_ready', '1 when the model can be asked.');
  readonly #restarts = this.#counter(
    'typert_engine_failures_total',
    'Times that an engine died or could not be opened.',
  );
  readonly #endToEnd = this.#histogram('trtllm_e2e_request_latency_seconds', 'From request to its last token.', long);
  readonly #firstToken = this.#histogram(
    'trtllm_time_to_first_token_seconds',
    'From request to its first token.',
    first,
  );
  readonly #perToken = this.#histogram(
    'trtllm_time_per_output_token_seconds',
    'Mean time of a request’s tokens after the first.',
    between,
  );
  readonly #between = this.#histogram('typert_inter_token_latency_seconds', 'From one token to the next.', between);
  readonly #decode = this.#histogram('trtllm_request_decode_time_seconds', 'From first to last token.', long);
  readonly #promptTokens = this.#counter('trtllm_prompt_tokens_total', 'Tokens of prompts.');
  readonly #generated = this.#counter('trtllm_generation_tokens_total', 'Tokens that were generated.');

  constructor() {
    collectDefaultMetrics({ register: this.#numbers });
  }

  get contentType(): string {
    return this.#numbers.contentType;
  }

  /** The numbers in Prometheus' text form. */
  async text(): Promise<string> {
    return await this.#numbers.metrics();
  }

  /** A request was taken. */
  requestStarted(model: string): void {
    this.#open.inc({ [label]: model });
  }

  tokens(model: string, count: number, milliseconds: number): void {
    // Tokens that came together share the time.
    for (let i = 0; i < count; i++) this.#between.observe({ [label]: model }, milliseconds / 1000 / count);
  }

  /** A request is over, however. */
  requestEnded(facts: RequestFacts): void {
    const labels = { [label]: facts.model };
    const { started, firstToken, ended, promptTokens, completionTokens, outcome } = facts;
    this.#open.dec(labels);
    this.#promptTokens.inc(labels, promptTokens);
    this.#generated.inc(labels, completionTokens);
    if (firstToken !== undefined) this.#firstToken.observe(labels, (firstToken - started) / 1000);
    if (outcome === 'cancelled') this.#cancelled.inc(labels);
    else if (outcome === 'error') this.#failed.inc(labels);
    else {
      this.#success.inc({ ...labels, finished_reason: outcome });
      this.#endToEnd.observe(labels, (ended - started) / 1000);
      if (firstToken === undefined) return;
      this.#decode.observe(labels, (ended - firstToken) / 1000);
      if (completionTokens > 1) this.#perToken.observe(labels, (ended - firstToken) / 1000 / (completionTokens - 1));
    }
  }

  /** A request was answered with an error. */
  requestRefused(status: number): void {
    this.#errors.inc({ http_code: String(status) });
  }

  statistics(model: string, statistics: ExecutorStatistics): void {
    this.#engine.take(model, statistics);
  }

  /** A model was loaded, unloaded, or died. */
  stateChanged(model: string, state: ModelState): void {
    this.setReady(model, state === 'ready');
    if (state === 'failed') this.#restarts.inc({ [label]: model });
    if (state === 'loading') this.#engine.forget(model);
  }

  /** What `typert_model_ready` says. */
  setReady(model: string, ready: boolean): void {
    this.#ready.set({ [label]: model }, ready ? 1 : 0);
  }

  #counter(name: string, help: string, more: string[] = []): Counter<string> {
    return new Counter({ name, help, labelNames: [label, ...more], registers: [this.#numbers] });
  }

  #gauge(name: string, help: string): Gauge<string> {
    return new Gauge({ name, help, labelNames: [label], registers: [this.#numbers] });
  }

  #histogram(name: string, help: string, buckets: number[]): Histogram<string> {
    return new Histogram({ name, help, buckets, labelNames: [label], registers: [this.#numbers] });
  }
}
