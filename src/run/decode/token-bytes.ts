// How vocabularies spell bytes: byte-level ones in GPT-2's letters, SentencePiece's as `<0x0A>` where a character has no token.

/** GPT-2's letters of the bytes: printable ones stand for themselves, the others for letters from U+0100 on, in order. */
export const letters: readonly string[] = (() => {
  const printable = (byte: number): boolean =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
})();

const byteOf = new Map(letters.map((letter, byte) => [letter, byte]));

/** The bytes that GPT-2's letters stand for; undefined when one of them is none. */
export function bytesOfLetters(token: string): number[] | undefined {
  const bytes = Array.from(token, (letter) => byteOf.get(letter));
  return bytes.every((byte) => byte !== undefined) ? bytes : undefined;
}

/** The byte that `<0x0A>` stands for; undefined when the token is no such. */
export function fallbackByte(token: string): number | undefined {
  const found = /^<0x([0-9A-F]{2})>$/.exec(token);
  return found === null ? undefined : Number.parseInt(found[1]!, 16);
}
