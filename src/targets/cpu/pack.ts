// Lays weights out for the kernels, some rows at a time: what comes in pieces in the checkpoint's order goes out in pieces in panels.
import { byteLength, type DType } from '../../base/dtype.ts';
import { TargetError } from '../../base/errors.ts';
import { toFloat32 } from '../../define/checkpoint/cast.ts';
import type { Plan, PlanTensor } from '../plan.ts';
import type { WeightPacking } from '../target.ts';
import { layoutOf, panelLayout, panelWeights, rowsTogether } from './layout.ts';

/** Lays `rows` × `columns` elements out in panels. */
export type PackRows = (dtype: DType, from: Uint8Array, rows: number, columns: number) => Uint8Array;

/** Rows are packed so many bytes at a time: enough to keep calls rare, little beside a weight. */
const chunkBytes = 4 << 20;

/** The panels of a weight whose stored bytes come in `pieces`. */
export function* packPieces(pack: PackRows, tensor: PlanTensor, pieces: Iterable<Uint8Array>): Generator<Uint8Array> {
  const { dtype } = tensor;
  const shape = tensor.shape as readonly number[];
  const [rows, columns] = [shape.at(-2)!, shape.at(-1)!];
  const rowBytes = byteLength(dtype, columns);
  const together = rowsTogether(dtype);
  const most = Math.min(rows, Math.max(together, Math.floor(chunkBytes / rowBytes / together) * together));
  const chunk = new Uint8Array(most * rowBytes);
  let filled = 0;
  // Rows of the matrix that are not yet packed: the next matrix of a stack begins a block of its own.
  let left = rows;
  for (const piece of pieces) {
    for (let at = 0; at < piece.length; ) {
      const wanted = Math.min(most, left) * rowBytes;
      const part = piece.subarray(at, at + wanted - filled);
      chunk.set(part, filled);
      filled += part.length;
      at += part.length;
      if (filled < wanted) break;
      yield pack(dtype, chunk.subarray(0, filled), filled / rowBytes, columns);
      left -= filled / rowBytes;
      if (left === 0) left = rows;
      filled = 0;
    }
  }
  if (filled !== 0 || left !== rows) throw new TargetError('a weight ends within a row', { where: tensor.name });
}

function* asFloats(tensor: PlanTensor, pieces: Iterable<Uint8Array>): Generator<Uint8Array> {
  for (const data of pieces) {
    const count = (data.length / byteLength(tensor.dtype, 256)) * 256;
    const floats = toFloat32({ dtype: tensor.dtype, shape: [count], data });
    yield new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);
  }
}

/** The packing of the CPU's engines; `open` gives what packs rows. */
export function panelPacking(open: (plan: Plan) => Promise<{ readonly pack: PackRows } & Disposable>): WeightPacking {
  return {
    layout: panelLayout,
    stored(plan) {
      const panels = panelWeights(plan);
      return new Map(
        plan.tensors.flatMap((tensor, index) =>
          tensor.storage.kind === 'weight' ? [[index, layoutOf(tensor, panels.has(index))] as const] : [],
        ),
      );
    },
    async open(plan) {
      const packer = await open(plan);
      return {
        pack: (tensor, packed, pieces) =>
          packed.layout === panelLayout ? packPieces(packer.pack, tensor, pieces) : asFloats(tensor, pieces),
        [Symbol.dispose]: () => packer[Symbol.dispose](),
      };
    },
  };
}
