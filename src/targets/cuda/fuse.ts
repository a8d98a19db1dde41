// What the CUDA target joins when it loads a plan: a product whose two halves meet in one gated activation becomes one gated product.
import type { Activation } from '../../define/graph/ops.ts';
import type { Plan, PlanStep } from '../plan.ts';

/** A step of the plan as it is launched. */
export interface FusedStep {
  readonly step: PlanStep;
  /** The gated activation that this product computes as well: its kind, and the tensor that it writes. */
  readonly gated?: { readonly kind: Activation; readonly output: number };
}

/** Index of the step that reads each tensor last, and how many steps touch it. */
function uses(steps: readonly PlanStep[]): Map<number, { count: number; last: number }> {
  const found = new Map<number, { count: number; last: number }>();
  for (const [at, step] of steps.entries())
    for (const index of Object.values(step.args)) {
      const { count } = found.get(index) ?? { count: 0 };
      found.set(index, { count: count + 1, last: at });
    }
  return found;
}

/**
 * The forward steps with gated products joined. All joined results go to one buffer of their own (the plan may have laid them over the product's input),
 * so a product is joined only where the result before it has had its last reader.
 */
export function fuseSteps(plan: Plan, bytesPerElement: number): readonly FusedStep[] {
  const steps = plan.phases.forward;
  const used = uses(steps);
  const gatedOf = new Map<number, { readonly at: number; readonly kind: Activation; readonly output: number }>();
  const products = new Map<number, number>();
  for (const [at, step] of steps.entries()) {
    const { storage } = step.op === 'matmul' ? plan.tensors[step.args.y!]! : { storage: undefined };
    if (storage?.kind === 'arena') products.set(storage.offset, at);
    if (step.op !== 'gated') continue;
    const [gate, up] = [plan.tensors[step.args.gate!]!, plan.tensors[step.args.up!]!];
    if (gate.storage.kind !== 'arena' || up.storage.kind !== 'arena') continue;
    const columns = gate.shape.at(-1);
    const product = products.get(gate.storage.offset);
    if (product === undefined || typeof columns !== 'number' || columns % 8 !== 0) continue;
    const result = steps[product]!.args.y!;
    const halves = plan.tensors[result]!.shape.at(-1) === 2 * columns && gate.stride === 2 * columns;
    const behind = up.stride === 2 * columns && up.storage.offset === gate.storage.offset + columns * bytesPerElement;
    const alone = [result, step.args.gate!, step.args.up!].every((index) => used.get(index)!.count === 1);
    if (halves && behind && alone)
      gatedOf.set(product, { at, kind: (step as PlanStep<'gated'>).attrs.kind, output: step.args.y! });
  }
  const out: FusedStep[] = [];
  const joined = new Set<number>();
  let busyUntil = -1;
  for (const [at, step] of steps.entries()) {
    if (joined.has(at)) continue;
    const gated = gatedOf.get(at);
    if (gated === undefined || busyUntil >= at) {
      out.push({ step });
      continue;
    }
    joined.add(gated.at);
    busyUntil = used.get(gated.output)!.last;
    out.push({ step, gated: { kind: gated.kind, output: gated.output } });
  }
  return out;
}
