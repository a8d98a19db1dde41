// Writes an engine folder, beside its place and renamed into it: config.json, rank0.engine (a safetensors file) and the text assets.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { byteLength, dtypes, elementCount, isBlockDType } from '../../base/dtype.ts';
import { EngineError } from '../../base/errors.ts';
import { writeFolder } from '../../base/files.ts';
import type { Progress } from '../../base/progress.ts';
import { type TensorToWrite, writeSafetensors } from '../../define/checkpoint/safetensors-write.ts';
import type { TensorSource } from '../../define/checkpoint/tensors.ts';
import { streamWeight } from '../../define/checkpoint/weights.ts';
import type { GraphWeight } from '../../define/graph/graph.ts';
import type { Plan, PlanTensor } from '../../targets/plan.ts';
import type { WeightPacker } from '../../targets/target.ts';
import { type EngineConfig, engineVersion, metadataKeys } from './schema.ts';

export interface EngineParts {
  readonly config: EngineConfig;
  readonly plan: Plan;
  readonly weights: readonly GraphWeight[];
  readonly tensors: TensorSource;
  readonly assets: ReadonlyMap<string, string>;
  /** Tensors of bytes besides the weights: kernels. */
  readonly extras: ReadonlyMap<string, Uint8Array>;
  /** Lays out the weights that the plan says are packed. */
  readonly packer?: WeightPacker;
}

interface Entry extends TensorToWrite {
  readonly weight: GraphWeight;
  readonly tensor: PlanTensor;
}

interface Extra extends TensorToWrite {
  readonly data: Uint8Array;
}

/** A weight as a safetensors tensor; block formats are bytes, a row of blocks a row, and so is what is laid out for kernels. */
function entry(weight: GraphWeight, tensor: PlanTensor): Entry {
  const { name, dtype, shape } = weight.value;
  const dims = shape as readonly number[];
  const packed = tensor.storage.kind === 'weight' ? tensor.storage.packed : undefined;
  if (packed !== undefined) {
    const floats = packed.layout === 'float32';
    const described = floats ? { dtype: 'F32', shape: dims } : { dtype: 'U8', shape: [packed.bytes] };
    return { name, ...described, bytes: packed.bytes, weight, tensor };
  }
  const bytes = byteLength(dtype, elementCount(dims));
  const stored = isBlockDType(dtype) ? [...dims.slice(0, -1), byteLength(dtype, dims.at(-1)!)] : dims;
  return { name, dtype: dtypes[dtype].safetensors, shape: stored, bytes, weight, tensor };
}

/** Returns the bytes written. When it fails (a full disk, a damaged checkpoint) no trace is left. */
export async function writeEngine(
  engineDir: string,
  { config, plan, weights, tensors, assets, extras, packer }: EngineParts,
  progress: Progress,
): Promise<number> {
  const places = new Map(
    plan.tensors.flatMap((tensor) => (tensor.storage.kind === 'weight' ? [[tensor.name, tensor]] : [])),
  );
  const entries = weights.flatMap((weight) => {
    const tensor = places.get(weight.value.name)!;
    const random = tensor.storage.kind === 'weight' && tensor.storage.random !== undefined;
    return random ? [] : [entry(weight, tensor)];
  });
  const carried = [...extras].map(
    ([name, data]): Extra => ({ name, dtype: 'U8', shape: [data.length], bytes: data.length, data }),
  );
  const total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  let done = 0;
  return await writeFolder(engineDir, async (folder) => {
    const metadata = { [metadataKeys.version]: String(engineVersion), [metadataKeys.plan]: JSON.stringify(plan) };
    const written = await writeSafetensors(
      join(folder, 'rank0.engine'),
      [...entries, ...carried],
      metadata,
      (written) => {
        if ('data' in written) return written.data;
        const { name, bytes, weight, tensor } = written;
        done += bytes;
        progress({ task: 'write engine', done, total, unit: 'bytes', item: name });
        const pieces = streamWeight(weight.from, tensors, weight.value.dtype);
        const packed = tensor.storage.kind === 'weight' ? tensor.storage.packed : undefined;
        return packed === undefined || packer === undefined ? pieces : packer.pack(tensor, packed, pieces);
      },
    );
    try {
      writeFileSync(join(folder, 'config.json'), `${JSON.stringify(config, null, 2)}\n`);
      for (const [name, content] of assets) writeFileSync(join(folder, name), content);
    } catch (error) {
      throw new EngineError('cannot be written', {
        where: engineDir,
        cause: error,
        remedy: 'Check free space and permissions',
      });
    }
    return written;
  });
}
