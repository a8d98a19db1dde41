// From a plan to the C text that is compiled for it: includes, one instance of each kernel that the plan uses, and their table.
import { TargetError } from '../../base/errors.ts';
import type { Plan, PlanStep } from '../plan.ts';
import { type Config, cpuKernel } from './kernels.ts';

export interface Stub {
  readonly text: string;
  /** Index into the table of kernels for each step, in the plan's order. */
  readonly kernelOf: ReadonlyMap<PlanStep, number>;
}

export function makeStub(plan: Plan): Stub {
  const files = new Set<string>();
  const definitions: string[] = [];
  const names = new Map<string, number>();
  const table: string[] = [];
  const kernelOf = new Map<PlanStep, number>();
  for (const step of [...plan.phases.forward, ...plan.phases.sample]) {
    const kernel = cpuKernel(step.op);
    if (kernel === undefined) throw new TargetError('no CPU kernel', { where: step.scope, got: step.op });
    const made = kernel.instance(step.kernel.config as Config, plan);
    const text = typeof made === 'string' ? made : `${made.macro}(${made.args.join(', ')})`;
    let index = names.get(text);
    if (index === undefined) {
      index = table.length;
      names.set(text, index);
      files.add(kernel.file);
      if (typeof made === 'string') {
        table.push(made);
      } else {
        table.push(`kernel_${index}`);
        definitions.push(`${made.macro}(kernel_${index}, ${made.args.join(', ')})`);
      }
    }
    kernelOf.set(step, index);
  }
  const text = [
    ...[...files].sort().map((file) => `#include "${file}"`),
    ...definitions,
    `static const kernel_fn typert_kernels[] = {${table.join(', ')}};`,
    '#include "include/cpu/step.h"',
    '',
  ].join('\n');
  return { text, kernelOf };
}
