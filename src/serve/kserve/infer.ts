// One inference request of the KServe v2 protocol through the engine, whichever way it came (JSON, bytes, gRPC): whole, or response by response (decoupled).

import type { StreamedRequestOutput } from '../../llm/outputs.ts';
import { ServeError } from '../errors.ts';
import { generate, merge } from '../generate.ts';
import type { Scope } from '../http.ts';
import type { Model, Registry } from '../registry.ts';
import { type Batch, type InferRequest, type Row, readInputs } from './request.ts';
import { type ModelSpec, textSpec, wellKnown } from './specs.ts';
import { Statistics } from './statistics.ts';
import type { Datatype, Element, Tensor } from './tensors.ts';

/** A name of the protocol, and what stands behind it. */
export interface Target {
  readonly name: string;
  readonly model: Model;
  readonly spec: ModelSpec;
}

function tensor(name: string, datatype: Datatype, shape: readonly number[], data: readonly Element[]): Tensor {
  return { name, datatype, shape, data };
}

/** Outputs of one row, padded to its longest sequence. */
function outputsOf(
  row: Row,
  output: StreamedRequestOutput,
  at: number,
  part: 'all' | 'new',
  spec: ModelSpec,
): Tensor[] {
  const all = output.outputs;
  const echo = part === 'all' && row.withInput;
  const ids = all.map(({ tokenIds, tokenIdsDelta }) => [
    ...(echo ? output.promptTokenIds : []),
    ...(part === 'all' ? tokenIds : tokenIdsDelta),
  ]);
  const longest = Math.max(0, ...ids.map(({ length }) => length));
  const made: Tensor[] = [];
  const add = (name: string, make: () => Tensor | undefined): void => {
    if (!row.wants.has(name)) return;
    const value = make();
    if (value !== undefined) made.push(value);
  };
  if (spec.kind === 'text') {
    const prompt = echo ? (output.prompt ?? '') : '';
    const texts = all.map(({ text, textDelta }) => prompt + (part === 'all' ? text : textDelta));
    add('text_output', () => tensor('text_output', 'BYTES', [texts.length], texts));
  } else {
    add('output_ids', () =>
      tensor(
        'output_ids',
        'INT32',
        [1, ids.length, longest],
        ids.flatMap((own) => [...own, ...new Array<number>(longest - own.length).fill(row.params.endId ?? 0)]),
      ),
    );
    add('sequence_length', () =>
      tensor(
        'sequence_length',
        'INT32',
        [1, ids.length],
        ids.map(({ length }) => length),
      ),
    );
  }
  add('cum_log_probs', () =>
    tensor(
      'cum_log_probs',
      'FP32',
      [1, all.length],
      all.map(({ cumulativeLogprob }) => cumulativeLogprob ?? 0),
    ),
  );
  add('output_log_probs', () => {
    const scores = all.map(({ tokenIds, tokenIdsDelta, logprobs = [] }) => {
      const own = part === 'all' ? tokenIds : tokenIdsDelta;
      const entries = own.length === 0 ? [] : logprobs.slice(-own.length);
      return own.map((id, i) => entries[i]?.get(id)?.logprob ?? 0);
    });
    const most = Math.max(0, ...scores.map(({ length }) => length));
    const data = scores.flatMap((own) => [...own, ...new Array<number>(most - own.length).fill(0)]);
    return tensor('output_log_probs', 'FP32', [1, scores.length, most], data);
  });
  const { contextLogits } = output;
  if (contextLogits !== undefined && output.finished)
    add('context_logits', () =>
      tensor('context_logits', 'FP32', [1, ...contextLogits.shape], Array.from(contextLogits.data)),
    );
  const logits = output.finished ? all[0]?.generationLogits : undefined;
  if (logits !== undefined && all.length === 1)
    add('generation_logits', () =>
      tensor('generation_logits', 'FP32', [1, 1, ...logits.shape], Array.from(logits.data)),
    );
  if (part === 'new') {
    add('batch_index', () => tensor('batch_index', 'INT32', [1, 1], [at]));
    add('sequence_index', () => tensor('sequence_index', 'INT32', [1, 1], [0]));
  }
  add('num_input_tokens', () => tensor('num_input_tokens', 'INT32', [1, 1], [output.promptTokenIds.length]));
  add('num_output_tokens', () =>
    tensor('num_output_tokens', 'INT32', [1, 1], [all.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0)]),
  );
  return made;
}

/** Rows of a batch one below the other; rows of different lengths are padded with zeros. */
function stack(rows: readonly (readonly Tensor[])[]): Tensor[] {
  if (rows.length === 1) return [...rows[0]!];
  return rows[0]!.map((first) => {
    const own = rows.map((row) => row.find(({ name }) => name === first.name)!);
    if (first.datatype === 'BYTES') {
      const data = own.flatMap(({ data }) => data);
      return { ...first, shape: [data.length], data };
    }
    const dims = first.shape.slice(1).map((_, i) => Math.max(...own.map(({ shape }) => shape[i + 1]!)));
    const data = own.flatMap((one) => pad(one.data, one.shape.slice(1), dims));
    return { ...first, shape: [rows.length, ...dims], data };
  });
}

function pad(data: readonly Element[], from: readonly number[], to: readonly number[]): Element[] {
  const [size = 1, ...inner] = from;
  const [wanted = 1, ...innerWanted] = to;
  if (from.length === 0) return [...data];
  const width = data.length / Math.max(1, size);
  const rows = Array.from({ length: size }, (_, i) => pad(data.slice(i * width, (i + 1) * width), inner, innerWanted));
  const missing = (wanted - size) * innerWanted.reduce((product, dim) => product * dim, 1);
  return [...rows.flat(), ...new Array<number>(missing).fill(0)];
}

/** The protocol's models over a registry. */
export class Inference {
  readonly registry: Registry;
  readonly statistics = new Statistics();
  /** Requests that can be stopped, by model and id. */
  readonly #running = new Map<string, () => void>();

  constructor(registry: Registry) {
    this.registry = registry;
  }

  /** All names that can be asked, with what they stand for. */
  get targets(): Target[] {
    const [first] = this.registry.models;
    const known =
      first === undefined ? [] : Object.entries(wellKnown).map(([name, spec]) => ({ name, model: first, spec }));
    return [...known, ...this.registry.models.map((model) => ({ name: model.name, model, spec: textSpec }))];
  }

  /** Throws ServeError 404. */
  find(name: string, version?: string): Target {
    const found = this.targets.find((target) => target.name === name);
    if (found === undefined || (version !== undefined && version !== '' && version !== '1'))
      throw new ServeError(`unknown model '${name}'${version ? `, version ${version}` : ''}`, {
        status: 404,
        code: 'model_not_found',
        expected: this.targets.map((target) => target.name).join(', '),
      });
    return found;
  }

  /** Starts a request; throws at once when it is refused. Gives one response, or many when it asks to stream in a `decoupled` call. */
  run(target: Target, request: InferRequest, scope: Scope, mode: 'whole' | 'decoupled'): AsyncGenerator<Tensor[]> {
    const { model, spec } = target;
    const { tokenizer, limits } = model.llm;
    const batch = readInputs(request, spec, { tokenizer, maxBatchSize: limits.maxBatchSize });
    if (batch.stop) {
      this.#running.get(keyOf(target, request))?.();
      return nothing();
    }
    if (batch.streaming && mode === 'whole')
      throw new ServeError('a stream needs a streaming call', {
        status: 400,
        param: 'stream',
        expected: 'generate_stream or gRPC ModelStreamInfer',
      });
    const stopper = new AbortController();
    const signal = AbortSignal.any([scope.signal, stopper.signal]);
    const { observer } = scope;
    try {
      const streams = batch.rows.map(({ input, params }) => generate({ model, input, params, signal, observer }));
      return this.#responses({ target, request, scope, batch, stopper, streams });
    } catch (error) {
      // Rows before the refused one are running.
      stopper.abort();
      this.statistics.begin(target.name)(false);
      throw error;
    }
  }

  async *#responses(running: Running): AsyncGenerator<Tensor[]> {
    const { target, request, scope, batch, stopper, streams } = running;
    const key = keyOf(target, request);
    const done = this.statistics.begin(target.name);
    if (request.id !== '') this.#running.set(key, () => stopper.abort(new DOMException('stopped', 'AbortError')));
    let ok = false;
    const lasts: Tensor[][] = [];
    try {
      for await (const [at, output] of merge(streams)) {
        const row = batch.rows[at]!;
        if (batch.streaming) yield outputsOf(row, output, at, 'new', target.spec);
        else if (output.finished) lasts[at] = outputsOf(row, output, at, 'all', target.spec);
      }
      if (!batch.streaming) yield stack(lasts);
      ok = true;
    } catch (error) {
      // Stopped by a request of its own: what came before it was the answer.
      if (!stopper.signal.aborted || scope.signal.aborted) throw error;
      ok = true;
      yield [];
    } finally {
      stopper.abort();
      this.#running.delete(key);
      done(ok);
    }
  }
}

interface Running {
  readonly target: Target;
  readonly request: InferRequest;
  readonly scope: Scope;
  readonly batch: Batch;
  readonly stopper: AbortController;
  readonly streams: readonly AsyncGenerator<StreamedRequestOutput, void, undefined>[];
}

function keyOf({ model }: Target, { id }: InferRequest): string {
  return `${model.name} ${id}`;
}

async function* nothing(): AsyncGenerator<Tensor[]> {
  yield [];
}
