import { describe, expect, it } from 'vitest';
import { bucketOf } from './buckets.ts';

describe('bucketOf', () => {
  it('keeps small batches close and large ones within an eighth', () => {
    expect([1, 2, 3, 5, 8, 9, 17, 64, 65, 100, 129].map((rows) => bucketOf(rows, 1024))).toEqual([
      1, 2, 4, 8, 8, 16, 24, 64, 72, 104, 144,
    ]);
    for (let rows = 9; rows <= 1024; rows++) {
      const bucket = bucketOf(rows, 1024);
      expect(bucket).toBeGreaterThanOrEqual(rows);
      expect(bucket - rows).toBeLessThan(Math.max(8, rows / 8 + 1));
    }
  });

  it('has few sizes, and never more rows than there may be', () => {
    expect(new Set(Array.from({ length: 1024 }, (_, i) => bucketOf(i + 1, 1024))).size).toBeLessThan(48);
    expect(bucketOf(60, 60)).toBe(60);
    expect(bucketOf(58, 60)).toBe(60);
    expect(bucketOf(3, 3)).toBe(3);
  });
});
