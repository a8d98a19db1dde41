// The memory plan: offsets in one arena for the values of a step, from their lifetimes. Values that are never alive together share bytes.
import { type Dims, evaluate } from '../base/expr.ts';
import type { AnyNode, Value } from '../define/graph/graph.ts';
import { ops } from '../define/graph/ops.ts';

/** One value's place in the arena. */
export interface ArenaSlot {
  readonly value: Value;
  readonly offset: number;
  readonly bytes: number;
  /** First and last step (index into the node list) at which it is alive. */
  readonly from: number;
  readonly to: number;
}

/** The memory plan of a step's values. */
export interface Arena {
  readonly bytes: number;
  readonly slots: readonly ArenaSlot[];
}

/** What every kernel may count on. */
const alignment = 256;

/** The value whose memory a view looks into. */
export function viewBase(value: Value, makers: ReadonlyMap<number, AnyNode>): Value {
  let base = value;
  for (let maker = makers.get(base.id); maker !== undefined && ops[maker.op].view; maker = makers.get(base.id))
    base = maker.inputs.x!;
  return base;
}

/** Lays out what `nodes` produce, with symbols at `limits`. `kept` values live to the end, what the sample phase makes until the next step makes it anew. Greedy by size: the largest first, each at the lowest offset free over its lifetime. */
export function layOut(
  nodes: readonly AnyNode[],
  kept: readonly Value[],
  limits: Dims,
  storageBytes: (value: Value) => number,
): Arena {
  const makers = new Map<number, AnyNode>();
  const lives = new Map<number, { value: Value; from: number; to: number }>();
  nodes.forEach((node, at) => {
    for (const value of Object.values(node.outputs)) {
      makers.set(value.id, node);
      const lasting = ops[node.op].phase === 'sample';
      if (!ops[node.op].view) lives.set(value.id, { value, from: lasting ? 0 : at, to: lasting ? nodes.length : at });
    }
    for (const value of Object.values(node.inputs)) {
      const life = lives.get(viewBase(value, makers).id);
      if (life !== undefined) life.to = Math.max(life.to, at);
    }
  });
  for (const value of kept) {
    const life = lives.get(viewBase(value, makers).id);
    if (life !== undefined) life.to = nodes.length;
  }
  const sized = [...lives.values()].map((life) => {
    const size = life.value.shape.reduce<number>((n, dim) => n * evaluate(dim, limits), storageBytes(life.value));
    return { ...life, bytes: Math.ceil(size / alignment) * alignment };
  });
  sized.sort((a, b) => b.bytes - a.bytes || a.from - b.from);
  const placed: ArenaSlot[] = [];
  for (const { value, from, to, bytes } of sized) {
    let offset = 0;
    const rivals = placed.filter((slot) => slot.from <= to && from <= slot.to).sort((a, b) => a.offset - b.offset);
    for (const rival of rivals) {
      if (offset + bytes <= rival.offset) break;
      offset = Math.max(offset, rival.offset + rival.bytes);
    }
    placed.push({ value, offset, bytes, from, to });
  }
  return {
    bytes: placed.reduce((end, slot) => Math.max(end, slot.offset + slot.bytes), 0),
    slots: placed.sort((a, b) => a.from - b.from || a.offset - b.offset),
  };
}
