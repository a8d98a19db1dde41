// The kernels of the WebAssembly module (src/kernels/generic/kernels.c): which of them computes a step, and the numbers that it takes with a launch
// where native kernels have constants.
import { TargetError } from '../../base/errors.ts';
import type { Plan, PlanStep } from '../plan.ts';
import { type Config, cpuKernel, weightFormats } from './kernels.ts';

/** In the order of the module's table, by the macro or the function that the stub names. */
const kernels = [
  'EMBEDDING',
  'MATMUL',
  'POINTWISE',
  'ROPE_CACHE',
  'PAGED_ATTENTION',
  'MOE_EXPERTS_KERNEL',
  'moe_route',
  'rmsnorm',
  'layernorm',
  'gather_rows',
  'sample',
  'MATMUL_EXACT',
];

/** Words of the macros' arguments, each list in the order of its C enum. */
const words: readonly (readonly string[])[] = [
  ['silu', 'gelu', 'gelu_tanh', 'quick_gelu', 'relu', 'relu2', 'sigmoid', 'tanh'],
  ['activation', 'gated', 'add', 'mul', 'scale', 'softcap'],
  ['CACHE_float32', 'CACHE_bfloat16', 'CACHE_int8'],
  ['NONE', 'RMS', 'LAYER'],
  ['HALF', 'INTERLEAVED'],
];
const numbers = new Map<string, number>([
  ...words.flatMap((list) => list.map((word, i) => [word, i] as const)),
  ...Object.values(weightFormats).map(({ name, id }) => [name, id] as const),
]);

function instance(step: PlanStep, plan: Plan): { readonly macro: string; readonly args: readonly (string | number)[] } {
  const made = cpuKernel(step.op)?.instance(step.kernel.config as Config, plan);
  if (made === undefined) throw new TargetError('no CPU kernel', { where: step.scope, got: step.op });
  return typeof made === 'string' ? { macro: made, args: [] } : made;
}

/** Index of a step's kernel in the module's table. */
export function wasmKernel(step: PlanStep, plan: Plan): number {
  const { macro } = instance(step, plan);
  const index = kernels.indexOf(macro);
  if (index < 0) throw new TargetError('no WebAssembly kernel', { where: step.scope, got: macro });
  return index;
}

/** What is constant in the native kernel of a step, as numbers. */
export function wasmConfig(step: PlanStep, plan: Plan): number[] {
  return instance(step, plan).args.map((arg) => {
    const number = typeof arg === 'number' ? arg : numbers.get(arg);
    if (number === undefined) throw new TargetError('no WebAssembly kernel', { where: step.scope, got: String(arg) });
    return number;
  });
}
