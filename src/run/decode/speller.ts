// Texts as tokens of a vocabulary, the longest token first. It is a guess at what a model would say: whoever uses it checks.
import type { GuidedDecodingConfig } from './guided.ts';

/** GPT-2's letters of the bytes: printable ones stand for themselves, the others for letters from U+0100 on, in order. */
const letters: readonly string[] = (() => {
  const printable = (byte: number): boolean =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
})();

const byteOf = new Map(letters.map((letter, byte) => [letter, byte]));

/** The bytes that GPT-2's letters stand for; undefined when one of them is none. */
export function bytesOfLetters(token: string): number[] | undefined {
  const bytes = Array.from(token, (letter) => byteOf.get(letter));
  return bytes.includes(undefined) ? undefined : (bytes as number[]);
}

export class Speller {
  readonly #ids = new Map<string, number>();
  readonly #kind: GuidedDecodingConfig['vocabType'];
  #longest = 0;

  constructor({ encodedVocab, vocabType }: Pick<GuidedDecodingConfig, 'encodedVocab' | 'vocabType'>) {
    this.#kind = vocabType;
    encodedVocab.forEach((token, id) => {
      if (token === '') return;
      this.#ids.set(token, id);
      this.#longest = Math.max(this.#longest, token.length);
    });
  }

  /** The tokens of a text's beginning, up to what no token spells. */
  spell(text: string): number[] {
    const encoded = this.#encode(text);
    const tokens: number[] = [];
    for (let at = 0; at < encoded.length; ) {
      let length = Math.min(this.#longest, encoded.length - at);
      while (length > 0 && !this.#ids.has(encoded.slice(at, at + length))) length--;
      if (length === 0) break;
      tokens.push(this.#ids.get(encoded.slice(at, at + length))!);
      at += length;
    }
    return tokens;
  }

  #encode(text: string): string {
    if (this.#kind === 'raw') return text;
    if (this.#kind === 'byte_fallback') return text.replaceAll(' ', '▁');
    return Array.from(new TextEncoder().encode(text), (byte) => letters[byte]!).join('');
  }
}
