// Which ranges of an engine's file are read for its weights.
import { expect, test } from 'vitest';
import type { PlanTensor } from '../plan.ts';
import { chunksOf } from './weights.ts';

function weight(name: string, bytes: number, at: number) {
  const tensor: PlanTensor = { name, dtype: 'uint8', shape: [bytes], storage: { kind: 'weight' } };
  return { tensor, dtype: 'float32' as const, bytes, at };
}

test('neighbours share a chunk, a large weight has several, a gap begins a new one', () => {
  const weights = [weight('a', 10, 0), weight('b', 25, 256), weight('c', 5, 512), weight('d', 4, 768)];
  const offsets: Record<string, number> = { b: 110, a: 100, c: 135, d: 200 };
  const chunks = chunksOf(weights, (name) => offsets[name]!, 16);
  expect(chunks).toEqual([
    {
      position: 100,
      bytes: 16,
      pieces: [
        { from: 0, bytes: 10, to: 0 },
        { from: 10, bytes: 6, to: 256 },
      ],
    },
    { position: 116, bytes: 16, pieces: [{ from: 0, bytes: 16, to: 262 }] },
    {
      position: 132,
      bytes: 8,
      pieces: [
        { from: 0, bytes: 3, to: 278 },
        { from: 3, bytes: 5, to: 512 },
      ],
    },
    { position: 200, bytes: 4, pieces: [{ from: 0, bytes: 4, to: 768 }] },
  ]);
});
