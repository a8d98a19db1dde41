// y[l] = x[rows[l]]
import type { ReferenceKernel } from '../reference.ts';

export const gatherRows: ReferenceKernel<'gatherRows'> = (args) => {
  const x = args.tensor('x');
  const rows = args.ints('rows');
  const y = args.tensor('y');
  const cols = x.shape[1]!;
  for (let l = 0; l < rows.shape[0]!; l++) {
    const from = rows.data[l]! * x.stride;
    y.data.set(x.data.subarray(from, from + cols), l * y.stride);
  }
};
