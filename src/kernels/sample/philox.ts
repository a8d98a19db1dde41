// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
// A draw depends on key and counter alone, so any target computes the same one in any order.

/** High 32 bits of the product of two unsigned 32-bit integers. */
function mulHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + (middle >>> 16) + (carry >>> 16)) >>> 0;
}

export type Words4 = readonly [number, number, number, number];

/** Ten rounds of Philox4x32: four unsigned 32-bit words from a 128-bit counter and a 64-bit key. */
export function philox4x32(counter: Words4, keyLow: number, keyHigh: number): Words4 {
  let [c0, c1, c2, c3] = counter;
  let k0 = keyLow >>> 0;
  let k1 = keyHigh >>> 0;
  for (let round = 0; round < 10; round++) {
    const high0 = mulHigh(0xd2511f53, c0);
    const high1 = mulHigh(0xcd9e8d57, c2);
    const low0 = Math.imul(0xd2511f53, c0) >>> 0;
    const low1 = Math.imul(0xcd9e8d57, c2) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/**
 * The uniform number in [0, 1) that samples token `counter` of a sequence: the upper 24 bits of the first word of counter (`counter`, 0, 0, 0) under key (`seedLow`, `seedHigh`).
 * 24 bits, because float32 holds them exactly: every target sees the same number.
 */
export function uniform(seedLow: number, seedHigh: number, counter: number): number {
  return (philox4x32([counter >>> 0, 0, 0, 0], seedLow, seedHigh)[0] >>> 8) * 2 ** -24;
}
