// Sizes of batches whose steps are captured as graphs: others are filled up to the next of them, so that a batch that shrinks or grows meets a graph that is there.

/** Rows that a step of `rows` generating requests is filled up to, `most` of them at most: powers of two up to 8, then at most an eighth more than asked. */
export function bucketOf(rows: number, most: number): number {
  if (rows >= most) return rows;
  let granule = 1;
  while (granule * 16 < rows) granule *= 2;
  if (rows <= 8) return Math.min(most, 2 ** Math.ceil(Math.log2(Math.max(1, rows))));
  return Math.min(most, Math.ceil(rows / Math.max(8, granule)) * Math.max(8, granule));
}
