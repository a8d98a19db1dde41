// Symbolic sizes: a dim is a number or an expression over T (tokens of the step), R (requests) and L (rows that want logits).
// Expressions are plain JSON, folded when built, so that equal sizes print equally.

/** T: tokens of the step, R: requests, L: rows that want logits. */
export type DimSymbol = 'T' | 'R' | 'L';
/** A size: a number, a symbol, or an operation on two sizes. */
export type Expr = number | DimSymbol | readonly [op: 'add' | 'mul' | 'ceildiv' | 'min' | 'max', a: Expr, b: Expr];
/** Sizes of a tensor, outermost first. */
export type Shape = readonly Expr[];
/** The values of the symbols in one step. */
export interface Dims {
  readonly T: number;
  readonly R: number;
  readonly L: number;
}

type Op = 'add' | 'mul' | 'ceildiv' | 'min' | 'max';

function apply(op: Op, a: number, b: number): number {
  switch (op) {
    case 'add':
      return a + b;
    case 'mul':
      return a * b;
    case 'ceildiv':
      return Math.ceil(a / b);
    case 'min':
      return Math.min(a, b);
    case 'max':
      return Math.max(a, b);
    default:
      return op satisfies never;
  }
}

/** Builds an expression, folding what is known: numbers stand second, neutral elements vanish, nested products and sums merge. */
export function expr(op: Op, a: Expr, b: Expr): Expr {
  if (typeof a === 'number' && typeof b === 'number') return apply(op, a, b);
  if ((op === 'add' || op === 'mul') && typeof a === 'number') return expr(op, b, a);
  if (op === 'add' && b === 0) return a;
  if ((op === 'mul' || op === 'ceildiv') && b === 1) return a;
  if (op === 'mul' && b === 0) return 0;
  if (
    (op === 'add' || op === 'mul') &&
    typeof b === 'number' &&
    typeof a === 'object' &&
    a[0] === op &&
    typeof a[2] === 'number'
  ) {
    return expr(op, a[1], apply(op, a[2], b));
  }
  return [op, a, b];
}

export const add = (a: Expr, b: Expr): Expr => expr('add', a, b);
export const mul = (a: Expr, b: Expr): Expr => expr('mul', a, b);
export const ceilDiv = (a: Expr, b: Expr): Expr => expr('ceildiv', a, b);

export function evaluate(e: Expr, dims: Dims): number {
  if (typeof e === 'number') return e;
  if (typeof e === 'string') return dims[e];
  return apply(e[0], evaluate(e[1], dims), evaluate(e[2], dims));
}

export function sameExpr(a: Expr, b: Expr): boolean {
  if (typeof a === 'object' && typeof b === 'object')
    return a[0] === b[0] && sameExpr(a[1], b[1]) && sameExpr(a[2], b[2]);
  return a === b;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, i) => sameExpr(dim, b[i]!));
}

/** Number of elements of a shape. */
export function elements(shape: Shape): Expr {
  return shape.reduce<Expr>((product, dim) => mul(product, dim), 1);
}

export function printExpr(e: Expr): string {
  if (typeof e !== 'object') return String(e);
  const [op, a, b] = e;
  const left = typeof a === 'object' ? `(${printExpr(a)})` : printExpr(a);
  const right = typeof b === 'object' ? `(${printExpr(b)})` : printExpr(b);
  if (op === 'add') return `${left}+${right}`;
  if (op === 'mul') return `${left}*${right}`;
  return `${op}(${printExpr(a)},${printExpr(b)})`;
}

export function printShape(shape: Shape): string {
  return `[${shape.map(printExpr).join(', ')}]`;
}
