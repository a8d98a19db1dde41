// What takes how much memory, as an engine's plan has it.
import { evaluate } from '../base/expr.ts';
import { blockBytes, type Plan } from '../targets/plan.ts';
import { cacheBytesOf, type Target } from '../targets/target.ts';
import { limitDims } from './plan.ts';

/** Bytes. */
export interface MemoryReport {
  /** As stored in the engine. */
  readonly weights: number;
  /** Activations, with every symbol at its limit. */
  readonly arena: number;
  /** One block of the KV cache, one token of it, and as much as a full batch of longest sequences would take. */
  readonly kvBlock: number;
  readonly kvToken: number;
  readonly kvAllSequences: number;
  readonly inputs: number;
}

/** What a plan of this target takes, with weights of so many bytes. */
export function memoryReport(plan: Plan, target: Target, weights: number): MemoryReport {
  const kvBlock = blockBytes(plan, cacheBytesOf(target));
  const inputs = plan.tensors
    .filter(({ storage }) => storage.kind === 'input')
    .reduce(
      (sum, { shape }) => sum + 4 * shape.reduce<number>((n, dim) => n * evaluate(dim, limitDims(plan.limits)), 1),
      0,
    );
  return {
    weights,
    arena: plan.arenaBytes,
    kvBlock,
    kvToken: kvBlock / plan.tokensPerBlock,
    kvAllSequences: kvBlock * plan.maxBlocksPerSequence * plan.limits.maxBatchSize,
    inputs,
  };
}
