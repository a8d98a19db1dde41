// Tokens that may not be sampled, as a bit a token: 1 is allowed.

/** Excludes the tokens of a row of logits whose bit is 0. */
export function maskRow(logits: Float32Array, allowed: Int32Array): void {
  const numWords = (logits.length + 31) >> 5;
  for (let at = 0; at < numWords; at++) {
    const word = allowed[at]!;
    if (word === -1) continue;
    const start = at << 5;
    if (word === 0) {
      // Most masks are long runs of nothing.
      while (at + 1 < numWords && allowed[at + 1] === 0) at++;
      logits.fill(Number.NEGATIVE_INFINITY, start, Math.min((at + 1) << 5, logits.length));
      continue;
    }
    for (let banned = ~word; banned !== 0; banned &= banned - 1) {
      const token = start + 31 - Math.clz32(banned & -banned);
      if (token < logits.length) logits[token] = Number.NEGATIVE_INFINITY;
    }
  }
}
