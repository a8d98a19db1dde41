// Opens an engine folder and checks it: version, config, plan against tensors. A damaged engine is refused before anything runs.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';
import { byteLength, elementCount } from '../../base/dtype.ts';
import { EngineError, TypertError } from '../../base/errors.ts';
import { isFile } from '../../base/files.ts';
import { readAssets } from '../../define/checkpoint/huggingface.ts';
import { openSafetensors } from '../../define/checkpoint/safetensors.ts';
import { kernelTensor, type Plan } from '../../targets/plan.ts';
import type { WeightFile } from '../../targets/target.ts';
import { type EngineConfig, engineConfigSchema, engineVersion, metadataKeys } from './schema.ts';

/** An engine on disk, opened for reading. */
export interface Engine extends Disposable {
  readonly path: string;
  readonly config: EngineConfig;
  readonly plan: Plan;
  /** Tokenizer and chat template files that came with the checkpoint. */
  readonly assets: ReadonlyMap<string, string>;
  /** Stored bytes of a weight or another tensor. */
  readWeight(name: string): Uint8Array;
  /** The file of the weights, and where in it each begins. */
  readonly file: WeightFile;
  /** Bytes of all weights as stored. */
  readonly weightBytes: number;
}

/** True when a folder looks like an engine. */
export function isEngine(path: string): boolean {
  return isFile(join(path, 'rank0.engine'));
}

const rebuild = 'Build it again from its checkpoint (typert build)';

function readConfig(path: string): EngineConfig {
  const file = join(path, 'config.json');
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new EngineError('cannot be read', {
      where: file,
      expected: 'the JSON config of an engine',
      got: (error as Error).message,
      remedy: rebuild,
      cause: error,
    });
  }
  const { version } = (json ?? {}) as { version?: unknown };
  if (typeof version === 'number' && version > engineVersion) {
    throw new EngineError('engine of a newer version', {
      where: file,
      expected: `version up to ${engineVersion}`,
      got: String(version),
      remedy: 'Update typert, or build the engine again with this one',
    });
  }
  const parsed = engineConfigSchema.safeParse(json);
  if (!parsed.success) {
    throw new EngineError('damaged engine config', {
      where: file,
      got: z.prettifyError(parsed.error).replaceAll('\n', ' '),
      remedy: rebuild,
    });
  }
  return parsed.data;
}

/** Minimal form of a plan: what must hold so that running it cannot read outside its memory. */
const planSchema = z.looseObject({
  target: z.string(),
  dtype: z.enum(['float32', 'bfloat16', 'float16']),
  limits: z.object({
    maxNumTokens: z.int().positive(),
    maxBatchSize: z.int().positive(),
    maxNumLogits: z.int().positive(),
  }),
  tokensPerBlock: z.int().positive(),
  maxBlocksPerSequence: z.int().positive(),
  tensors: z.array(
    z.looseObject({
      name: z.string(),
      dtype: z.string(),
      shape: z.array(z.unknown()),
      storage: z.looseObject({
        kind: z.enum(['arena', 'weight', 'input']),
        packed: z.object({ layout: z.string(), bytes: z.int().nonnegative() }).optional(),
        random: z.int().optional(),
      }),
    }),
  ),
  phases: z.object({
    forward: z.array(z.looseObject({ op: z.string(), args: z.record(z.string(), z.int().nonnegative()) })),
    sample: z.array(z.looseObject({ op: z.string() })),
  }),
  outputs: z.record(z.string(), z.int().nonnegative()),
  caches: z.array(z.looseObject({ layer: z.int().nonnegative() })),
  arenaBytes: z.int().nonnegative(),
  tactics: z
    .object({
      device: z.string(),
      problems: z.record(
        z.string(),
        z.array(z.object({ upTo: z.int().positive(), config: z.record(z.string(), z.unknown()) })),
      ),
    })
    .optional(),
  kernels: z.object({ arch: z.string(), compiler: z.string(), sources: z.record(z.string(), z.string()) }).optional(),
});

function parsePlan(text: string | undefined, file: string): Plan {
  const damaged = (got: string, cause?: unknown) =>
    new EngineError('damaged plan', {
      where: file,
      expected: `a plan under ${metadataKeys.plan} in the metadata`,
      got,
      remedy: rebuild,
      cause,
    });
  if (text === undefined) throw damaged('none');
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw damaged((error as Error).message, error);
  }
  const parsed = planSchema.safeParse(json);
  if (!parsed.success) throw damaged(z.prettifyError(parsed.error).split('\n').slice(0, 4).join(' '));
  const { tensors, phases, outputs } = parsed.data;
  const indices = [...Object.values(outputs), ...phases.forward.flatMap((step) => Object.values(step.args))];
  if (indices.some((index) => index >= tensors.length)) throw damaged('an argument that names no tensor');
  return json as Plan;
}

/** Opens the engine in a folder. Throws EngineError naming the file and what to do. */
export function openEngine(path: string): Engine {
  const file = join(path, 'rank0.engine');
  if (!isEngine(path)) {
    throw new EngineError('no engine', {
      where: path,
      expected: 'a folder with config.json and rank0.engine',
      remedy: 'typert build MODEL -o DIR makes one',
    });
  }
  const config = readConfig(path);
  let source: ReturnType<typeof openSafetensors>;
  try {
    source = openSafetensors(file);
  } catch (error) {
    throw new EngineError('damaged engine', {
      where: file,
      got: error instanceof TypertError ? error.message : String(error),
      remedy: rebuild,
      cause: error,
    });
  }
  try {
    const plan = parsePlan(source.metadata[metadataKeys.plan], file);
    let weightBytes = 0;
    for (const tensor of plan.tensors) {
      if (tensor.storage.kind !== 'weight' || tensor.storage.random !== undefined) continue;
      const { packed } = tensor.storage;
      const bytes = packed?.bytes ?? byteLength(tensor.dtype, elementCount(tensor.shape as readonly number[]));
      const stored = source.tensors.get(tensor.name);
      if (stored?.bytes !== bytes) {
        throw new EngineError('damaged engine: a weight does not fit its plan', {
          where: `${file}: ${tensor.name}`,
          expected: `${bytes} bytes`,
          got: stored === undefined ? 'nothing' : `${stored.bytes} bytes`,
          remedy: rebuild,
        });
      }
      weightBytes += bytes;
    }
    for (const name of Object.keys(plan.kernels?.sources ?? {})) {
      if (source.tensors.has(kernelTensor(name))) continue;
      throw new EngineError('damaged engine: a kernel is missing', {
        where: file,
        expected: `a tensor named ${kernelTensor(name)}`,
        got: 'nothing',
        remedy: rebuild,
      });
    }
    const assets = readAssets(path);
    return {
      path,
      config,
      plan,
      assets,
      weightBytes,
      readWeight: (name) => source.read(name),
      file: { path: file, bytes: source.bytes, offsetOf: (name) => source.offsetOf(name) },
      [Symbol.dispose]: () => source[Symbol.dispose](),
    };
  } catch (error) {
    source[Symbol.dispose]();
    throw error;
  }
}
