// Where a program's weights are: in the engine's file, mapped, when they lie there as kernels read them; else in memory, laid out while loading.
import { elementCount } from '../../base/dtype.ts';
import { TargetError } from '../../base/errors.ts';
import { toFloat32 } from '../../define/checkpoint/cast.ts';
import type { PackedWeight, PlanTensor } from '../plan.ts';
import type { ProgramSource } from '../target.ts';
import type { KernelHost } from './host.ts';
import { layoutOf, panelLayout, panelWeights } from './layout.ts';
import { packPieces } from './pack.ts';

export interface PlacedWeights {
  /** By index in the plan's tensors. */
  readonly addresses: ReadonlyMap<number, bigint>;
  readonly bytes: number;
}

interface Weight {
  readonly index: number;
  readonly tensor: PlanTensor;
  /** How the engine stores it; undefined: as its dtype says. */
  readonly stored: PackedWeight | undefined;
  /** How kernels read it. */
  readonly wanted: PackedWeight;
}

/** Mapped weights begin where registers of 64 bytes are whole. */
const alignment = 64;
/** Kernels ask for memory a little past the end of a weight. */
const prefetchBytes = 8192;

/** Finds or makes a place for every weight. Throws TargetError when the engine's layout is not the kernels'. */
export function placeWeights(source: ProgramSource, host: KernelHost): PlacedWeights {
  const { plan, file } = source;
  const panels = panelWeights(plan);
  const weights = plan.tensors.flatMap((tensor, index): Weight[] => {
    if (tensor.storage.kind !== 'weight') return [];
    const { packed: stored } = tensor.storage;
    const wanted = layoutOf(tensor, panels.has(index));
    if (stored !== undefined && stored.layout !== wanted.layout)
      throw new TargetError('weights are laid out for other kernels', {
        where: `${file?.path ?? 'engine'}: ${tensor.name}`,
        expected: wanted.layout,
        got: stored.layout,
        remedy: 'Build the engine again from its checkpoint with this version (typert build)',
      });
    return [{ index, tensor, stored, wanted }];
  });
  const bytes = weights.reduce((sum, { wanted }) => sum + wanted.bytes, 0);
  return { addresses: mapped(source, host, weights) ?? copied(source, host, weights), bytes };
}

function mapped(
  { file, onWeight }: ProgramSource,
  host: KernelHost,
  weights: readonly Weight[],
): ReadonlyMap<number, bigint> | undefined {
  if (file === undefined || weights.some(({ stored }) => stored === undefined)) return undefined;
  const inPlace = ({ tensor, wanted }: Weight): boolean =>
    file.offsetOf(tensor.name) % (wanted.layout === panelLayout ? alignment : 4) === 0;
  if (!weights.every(inPlace)) return undefined;
  const base = host.map(file.path, file.bytes);
  if (base === undefined) return undefined;
  for (const { tensor, wanted } of weights) onWeight?.(tensor.name, wanted.bytes);
  return new Map(weights.map(({ index, tensor }) => [index, base + BigInt(file.offsetOf(tensor.name))]));
}

/** All weights in one stretch of memory: on huge pages small ones are read as fast as large ones. */
function copied(
  { readWeight, onWeight }: ProgramSource,
  host: KernelHost,
  weights: readonly Weight[],
): ReadonlyMap<number, bigint> {
  const addresses = new Map<number, bigint>();
  let bytes = 0;
  const places = weights.map(({ wanted }) => {
    const at = bytes;
    bytes += Math.ceil(wanted.bytes / alignment) * alignment;
    return at;
  });
  const base = host.allocate('weights', bytes + prefetchBytes);
  weights.forEach(({ index, tensor, stored, wanted }, i) => {
    const data = readWeight(tensor.name);
    const address = base + BigInt(places[i]!);
    const to = host.bytesAt(address, wanted.bytes);
    let at = 0;
    for (const piece of laidOut(host, tensor, stored, wanted, data)) {
      to.set(piece, at);
      at += piece.length;
    }
    onWeight?.(tensor.name, data.byteLength);
    addresses.set(index, address);
  });
  return addresses;
}

function laidOut(
  host: KernelHost,
  tensor: PlanTensor,
  stored: PackedWeight | undefined,
  wanted: PackedWeight,
  data: Uint8Array,
): Iterable<Uint8Array> {
  if (stored !== undefined) return [data];
  if (wanted.layout === panelLayout) return packPieces(host.pack, tensor, [data]);
  const shape = tensor.shape as readonly number[];
  const floats = toFloat32({ dtype: tensor.dtype, shape: [elementCount(shape)], data });
  return [new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength)];
}
