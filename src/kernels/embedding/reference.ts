// y[t] = table[ids[t]]
import type { ReferenceKernel } from '../reference.ts';

export const embedding: ReferenceKernel<'embedding'> = (args) => {
  const ids = args.ints('ids');
  const table = args.tensor('table');
  const y = args.tensor('y');
  const cols = table.shape[1]!;
  for (let t = 0; t < ids.shape[0]!; t++) {
    const from = ids.data[t]! * cols;
    y.data.set(table.data.subarray(from, from + cols), t * y.stride);
  }
};
