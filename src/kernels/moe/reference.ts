// Mixture of experts: routing, then each token's experts one after the other.
import { multiply } from '../matmul/reference.ts';
import { activations } from '../pointwise/reference.ts';
import type { ReferenceKernel } from '../reference.ts';

export const moeRoute: ReferenceKernel<'moeRoute'> = (args, { topK, scoring, normalize, scale }) => {
  const logits = args.tensor('logits');
  const bias = args.optional('bias')?.data;
  const weights = args.tensor('weights');
  const experts = args.ints('experts');
  const [rows, count] = logits.shape as [number, number];
  const scores = new Float64Array(count);
  for (let t = 0; t < rows; t++) {
    const at = t * logits.stride;
    const row = logits.data.subarray(at, at + count);
    if (scoring === 'sigmoid') {
      for (let e = 0; e < count; e++) scores[e] = 1 / (1 + Math.exp(-row[e]!));
    } else {
      const max = row.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
      let total = 0;
      for (let e = 0; e < count; e++) total += scores[e] = Math.exp(row[e]! - max);
      for (let e = 0; e < count; e++) scores[e]! /= total;
    }
    // The bias takes part in the choice only (DeepSeek-V3); ties go to the lower id.
    const order = Array.from(scores.keys()).sort(
      (a, b) => scores[b]! + (bias?.[b] ?? 0) - (scores[a]! + (bias?.[a] ?? 0)) || a - b,
    );
    const chosen = order.slice(0, topK);
    const sum = normalize ? chosen.reduce((s, e) => s + scores[e]!, 0) : 1;
    chosen.forEach((e, i) => {
      experts.data[t * topK + i] = e;
      weights.data[t * topK + i] = (scores[e]! / sum) * scale;
    });
  }
};

export const moeExperts: ReferenceKernel<'moeExperts'> = (args, { kind }) => {
  const x = args.tensor('x');
  const weights = args.tensor('weights');
  const experts = args.ints('experts');
  const gateUp = args.tensor('gateUp');
  const down = args.tensor('down');
  const y = args.tensor('y');
  const [, hidden, inner] = down.shape as [number, number, number];
  const topK = experts.shape[1]!;
  const activate = activations[kind];
  const both = new Float32Array(2 * inner);
  const result = new Float32Array(hidden);
  for (let t = 0; t < x.shape[0]!; t++) {
    const row = y.data.subarray(t * y.stride, t * y.stride + hidden);
    const from = x.data.subarray(t * x.stride, t * x.stride + hidden);
    const total = new Float64Array(hidden);
    for (let i = 0; i < topK; i++) {
      const expert = experts.data[t * topK + i]!;
      multiply(
        from,
        hidden,
        1,
        gateUp.data,
        expert * 2 * inner * hidden,
        2 * inner,
        hidden,
        undefined,
        both,
        2 * inner,
      );
      for (let j = 0; j < inner; j++) both[j] = Math.fround(activate(both[j]!)) * both[inner + j]!;
      multiply(both, inner, 1, down.data, expert * hidden * inner, hidden, inner, undefined, result, hidden);
      const weight = weights.data[t * topK + i]!;
      for (let j = 0; j < hidden; j++) total[j]! += weight * result[j]!;
    }
    row.set(total);
  }
};
