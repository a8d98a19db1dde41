// Whether counts could have been drawn from a distribution.

/** Pearson's statistic, tokens expected fewer than 8 times taken together; its limit is the quantile at p = 0.0005 (Wilson and Hilferty 1931). `impossible`: drawn though it has no chance. */
export function chiSquare(counts: ArrayLike<number>, probabilities: Float64Array, draws: number) {
  let statistic = 0;
  let freedom = -1;
  let rest = { count: 0, expected: 0 };
  const impossible: number[] = [];
  probabilities.forEach((probability, token) => {
    const [count, expected] = [counts[token]!, probability * draws];
    if (probability === 0) {
      if (count > 0) impossible.push(token);
    } else if (expected < 8) rest = { count: rest.count + count, expected: rest.expected + expected };
    else {
      statistic += (count - expected) ** 2 / expected;
      freedom++;
    }
  });
  if (rest.expected > 0) {
    statistic += (rest.count - rest.expected) ** 2 / rest.expected;
    freedom++;
  }
  const limit = freedom * (1 - 2 / (9 * freedom) + 3.29 * Math.sqrt(2 / (9 * freedom))) ** 3;
  return { statistic, limit, impossible };
}
