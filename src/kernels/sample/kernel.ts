// The sampling op over the step's logits rows.
import type { ReferenceKernel } from '../reference.ts';
import { sampleRow } from './reference.ts';

export const sample: ReferenceKernel<'sample'> = (args) => {
  const logits = args.tensor('logits');
  const [rows, vocab] = logits.shape as [number, number];
  const temperature = args.tensor('temperature').data;
  const topK = args.ints('topK').data;
  const topP = args.tensor('topP').data;
  const minP = args.tensor('minP').data;
  const seedLow = args.ints('seedLow').data;
  const seedHigh = args.ints('seedHigh').data;
  const counter = args.ints('counter').data;
  const tokens = args.ints('token').data;
  const logprobs = args.tensor('logprob').data;
  for (let l = 0; l < rows; l++) {
    const { token, logprob } = sampleRow(logits.data.subarray(l * logits.stride, l * logits.stride + vocab), {
      temperature: temperature[l]!,
      topK: topK[l]!,
      topP: topP[l]!,
      minP: minP[l]!,
      seedLow: seedLow[l]! >>> 0,
      seedHigh: seedHigh[l]! >>> 0,
      counter: counter[l]! >>> 0,
    });
    tokens[l] = token;
    logprobs[l] = logprob;
  }
};
