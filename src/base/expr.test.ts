import { describe, expect, test } from 'vitest';
import { add, ceilDiv, elements, evaluate, mul, printShape, sameExpr } from './expr.ts';

describe('expr', () => {
  test('folds what is known', () => {
    expect(mul(3, mul('T', 2))).toEqual(['mul', 'T', 6]);
    expect(add(add('R', 1), 2)).toEqual(['add', 'R', 3]);
    expect(mul('T', 1)).toBe('T');
    expect(mul('T', 0)).toBe(0);
    expect(add(0, 'L')).toBe('L');
    expect(ceilDiv(10, 4)).toBe(3);
  });

  test('evaluates and prints', () => {
    const dims = { T: 10, R: 3, L: 2 };
    expect(evaluate(ceilDiv(mul('T', 3), 8), dims)).toBe(4);
    expect(evaluate(elements(['T', 4, 'R']), dims)).toBe(120);
    expect(printShape(['T', add('R', 1), ceilDiv('T', 64)])).toBe('[T, R+1, ceildiv(T,64)]');
    expect(sameExpr(mul('T', 2), mul(2, 'T'))).toBe(true);
    expect(sameExpr(mul('T', 2), mul('R', 2))).toBe(false);
  });
});
