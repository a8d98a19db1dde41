// A model repository for those who run NVIDIA's Triton Inference Server itself: config.pbtxt with the tensors of TensorRT-LLM's backend, and a Python backend that asks a running TypeRT.
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { UsageError } from '../../base/errors.ts';
import { configType, type ModelSpec, type TensorSpec, textSpec, tokenSpec } from '../kserve/specs.ts';

export interface TritonRepoOptions {
  readonly dir: string;
  /** Of the running server. */
  readonly url: string;
  /** Further models by name, beside `ensemble` and `tensorrt_llm`. */
  readonly models?: readonly string[];
  /** Rows of one request at most; default 64. */
  readonly maxBatchSize?: number;
  /** Many responses a request, as streams need; false: one, as Triton's HTTP `infer` needs. Default true. */
  readonly decoupled?: boolean;
  /** Seconds that a request may be silent; default 600. */
  readonly timeout?: number;
}

/** Text of protobuf: quotes and control characters escaped. */
function quote(text: string): string {
  const escaped = text
    .replace(/[\\"]/g, '\\$&')
    .replace(/[^ -~]/gu, (char) =>
      [...Buffer.from(char)].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join(''),
    );
  return `"${escaped}"`;
}

function tensor(field: 'input' | 'output', { name, datatype, dims, optional }: TensorSpec): string {
  return [
    `${field} {`,
    `  name: ${quote(name)}`,
    `  data_type: ${configType(datatype)}`,
    ...dims.map((dim) => `  dims: ${dim}`),
    ...(optional ? ['  optional: true'] : []),
    '}',
  ].join('\n');
}

function parameter(key: string, value: string): string {
  return `parameters {\n  key: ${quote(key)}\n  value { string_value: ${quote(value)} }\n}`;
}

/** The config.pbtxt of one model. */
export function pbtxt(name: string, spec: ModelSpec, options: Omit<TritonRepoOptions, 'dir'>): string {
  const { url, maxBatchSize = 64, decoupled = true, timeout = 600 } = options;
  return `${[
    '# Written by `typert triton-repo`.',
    `name: ${quote(name)}`,
    'backend: "python"',
    `max_batch_size: ${maxBatchSize}`,
    `model_transaction_policy { decoupled: ${decoupled} }`,
    ...spec.inputs.map((input) => tensor('input', input)),
    ...spec.outputs.map((output) => tensor('output', output)),
    'instance_group {\n  count: 1\n  kind: KIND_CPU\n}',
    parameter('typert_url', url),
    parameter('typert_model', name),
    parameter('typert_timeout', String(timeout)),
  ].join('\n')}\n`;
}

function checkUrl(url: string): void {
  if (URL.canParse(url) && /^https?:/.test(url)) return;
  throw new UsageError('not the URL of a server', { where: 'url', expected: 'http://HOST:PORT', got: url });
}

/** Writes the repository and gives the names of its models. A folder that is there must be empty or a repository written before. Throws UsageError. */
export function writeTritonRepo(options: TritonRepoOptions): readonly string[] {
  const { dir, url, models = [] } = options;
  checkUrl(url);
  for (const name of models)
    if (!/^[\w.-]+$/.test(name) || name.startsWith('.'))
      throw new UsageError('cannot be the name of a model in a repository', {
        where: 'model',
        expected: 'letters, digits, - _ and .',
        got: name,
        remedy: 'Serve it under such a name: --served-model-name',
      });
  const specs = new Map<string, ModelSpec>([
    ['ensemble', textSpec],
    ['tensorrt_llm', tokenSpec],
    ...models.map((name): [string, ModelSpec] => [name, textSpec]),
  ]);
  const strangers = existsSync(dir) ? readdirSync(dir).filter((name) => !specs.has(name)) : [];
  if (strangers.length > 0)
    throw new UsageError('the folder holds something else', {
      where: dir,
      got: strangers.slice(0, 3).join(', '),
      remedy: 'Name a folder that is empty or not there',
    });
  const script = fileURLToPath(new URL('./model.py', import.meta.url));
  // Beside its place first: a repository that Triton watches never holds half a model.
  const draft = join(dirname(dir), `.${basename(dir)}.${process.pid}`);
  try {
    for (const [name, spec] of specs) {
      mkdirSync(join(draft, name, '1'), { recursive: true });
      writeFileSync(join(draft, name, 'config.pbtxt'), pbtxt(name, spec, options));
      copyFileSync(script, join(draft, name, '1', 'model.py'));
    }
    mkdirSync(dir, { recursive: true });
    for (const name of specs.keys()) {
      rmSync(join(dir, name), { recursive: true, force: true });
      renameSync(join(draft, name), join(dir, name));
    }
  } catch (cause) {
    throw new UsageError('cannot be written', { where: dir, cause });
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
  return [...specs.keys()];
}
