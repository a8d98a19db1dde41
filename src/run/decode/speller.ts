// Texts as tokens of a vocabulary, the longest token first. It is a guess at what a model would say: whoever uses it checks.
import type { GuidedDecodingConfig } from './guided.ts';
import { letters } from './token-bytes.ts';

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
