// Masks by beginning: found again, and no more of them than there is room for.
import { describe, expect, it } from 'vitest';
import { MaskCache } from './mask-cache.ts';

describe('MaskCache', () => {
  it('keeps masks by the tokens before them, up to its size', () => {
    const cache = new MaskCache(1000);
    const root = cache.root();
    cache.keep(root, new Int32Array(100));
    const next = cache.after(root, 7)!;
    expect(cache.after(root, 7)).toBe(next);
    cache.keep(next, new Int32Array(100));
    expect([root.mask?.length, next.mask?.length]).toEqual([100, 100]);
    expect(cache.after(next, 1)).toBeUndefined();
    expect(cache.after(root, 7)).toBe(next);
  });
});
