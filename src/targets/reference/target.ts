// The reference target: plain TypeScript, slow and obvious. It says what every op means; the others must agree with it.
import { track } from '../../base/dispose.ts';
import { type KernelOp, referenceKernels } from '../../kernels/reference-table.ts';
import { hostMemory } from '../host-memory.ts';
import type { Device, ProgramSource, Target } from '../target.ts';
import { ReferenceProgram } from './program.ts';

export const referenceTarget: Target = {
  name: 'reference',
  probe: () => ({
    available: true,
    detail: 'plain TypeScript, one thread: works everywhere, for checking rather than for speed',
  }),
  // Narrow arithmetic is only slower here; `dtype: 'bfloat16'` asks for its rounding.
  computeDType: () => 'float32',
  // Floats of every dtype are kept as float32, rounded to what the dtype can hold.
  storageBytes: () => 4,
  // The cache as other targets have it, rounded likewise.
  cache: {
    dtypes: ['float32', 'bfloat16', 'float16', 'int8'],
    auto: (dtype) => (dtype === 'auto' ? 'float32' : dtype),
    bytes: () => 4,
  },
  keepsBlocks: () => true,
  // It computes products with them, but without is what the others are compared with.
  epilogues: [],
  select: (node) =>
    Object.hasOwn(referenceKernels, node.op satisfies string as KernelOp)
      ? { name: `reference/${node.op}`, config: {} }
      : undefined,
  open: async (): Promise<Device> => {
    const close = track('device');
    return {
      target: 'reference',
      name: 'reference',
      memory: hostMemory,
      load: async (source: ProgramSource) => new ReferenceProgram(source),
      [Symbol.asyncDispose]: async () => close(),
    };
  },
};
