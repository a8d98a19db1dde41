import { describe, expect, it } from 'vitest';
import { philox4x32, uniform, type Words4 } from './philox.ts';

// Known answers published with the paper's Random123 library (philox4x32, 10 rounds).
const answers: readonly { counter: Words4; key: readonly [number, number]; words: Words4 }[] = [
  { counter: [0, 0, 0, 0], key: [0, 0], words: [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8] },
  {
    counter: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    key: [0xffffffff, 0xffffffff],
    words: [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
  },
  {
    counter: [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    key: [0xa4093822, 0x299f31d0],
    words: [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  },
];

describe('philox4x32-10', () => {
  it('gives the published answers', () => {
    for (const { counter, key, words } of answers) expect(philox4x32(counter, ...key)).toEqual(words);
  });

  it('draws uniform numbers in [0, 1) that float32 holds exactly', () => {
    let sum = 0;
    const buckets = new Float64Array(16);
    const draws = 16_000;
    for (let i = 0; i < draws; i++) {
      const u = uniform(42, 7, i);
      expect(u >= 0 && u < 1 && Math.fround(u) === u).toBe(true);
      sum += u;
      buckets[Math.floor(u * 16)]! += 1;
    }
    expect(Math.abs(sum / draws - 0.5)).toBeLessThan(0.01);
    const chiSquare = buckets.reduce((total, count) => total + (count - draws / 16) ** 2 / (draws / 16), 0);
    expect(chiSquare).toBeLessThan(37.7); // 15 degrees of freedom, p = 0.001
  });
});
