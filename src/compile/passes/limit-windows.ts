// Windows that the build asks for: every layer sees at most so many positions, the first few of them always (attention sinks, Xiao et al. 2023).
import { CompileError } from '../../base/errors.ts';
import { rewrite } from '../../define/graph/rewrite.ts';
import type { Pass } from '../pass.ts';

/** What a build may limit: TensorRT-LLM's names in camelCase. */
export interface WindowLimits {
  /** Positions that each layer sees at most, the sinks among them; repeated when there are more layers than entries. */
  readonly maxAttentionWindow?: readonly number[];
  /** So many first positions stay visible in layers with a window; default 0. */
  readonly sinkTokenLength?: number;
}

/** Throws CompileError when the limits make no sense. */
function check({ maxAttentionWindow = [], sinkTokenLength = 0 }: WindowLimits): void {
  const refuse = (where: string, expected: string, got: unknown): never => {
    throw new CompileError('not acceptable', { where, expected, got: String(got) });
  };
  if (!Number.isInteger(sinkTokenLength) || sinkTokenLength < 0)
    refuse('sinkTokenLength', 'an integer ≥ 0', sinkTokenLength);
  for (const window of maxAttentionWindow)
    if (!Number.isInteger(window) || window <= sinkTokenLength)
      refuse('maxAttentionWindow', `integers above sinkTokenLength = ${sinkTokenLength}`, window);
}

/** The pass for these limits; undefined when they limit nothing. */
export function limitWindows(limits: WindowLimits): Pass | undefined {
  check(limits);
  const { maxAttentionWindow = [], sinkTokenLength = 0 } = limits;
  if (maxAttentionWindow.length === 0 && sinkTokenLength === 0) return undefined;
  const limited = <Spec extends { readonly layer: number; readonly window?: number }>(spec: Spec): Spec => {
    const most = maxAttentionWindow[spec.layer % maxAttentionWindow.length] ?? Number.POSITIVE_INFINITY;
    const seen = Math.min(most, spec.window ?? Number.POSITIVE_INFINITY);
    if (seen === Number.POSITIVE_INFINITY) return spec;
    if (sinkTokenLength === 0) return { ...spec, window: seen };
    return { ...spec, window: Math.max(1, seen - sinkTokenLength), sinkTokens: sinkTokenLength };
  };
  return {
    name: 'limit-windows',
    does: 'gives attention the windows and sinks that the build asks for',
    run: (graph) =>
      rewrite(
        graph,
        (node, to) => {
          if (node.op !== 'attention') return false;
          const inputs = Object.fromEntries(Object.entries(node.inputs).map(([name, value]) => [name, to.get(value)]));
          const { y } = to.builder.op('attention', node.scope, inputs, limited(node.attrs));
          to.set(node.outputs.y!, y!);
          return true;
        },
        graph.caches.map(limited),
      ),
  };
}
