// Log-probabilities in OpenAI's two forms: a list of objects for chats, parallel lists for completions.
import type { Logprob, TokenLogprobs } from '../../llm/outputs.ts';
import { bytesOfLetters, fallbackByte } from '../../run/decode/token-bytes.ts';
import type { ServedTokenizer } from '../model.ts';

const encoder = new TextEncoder();

/** The text of one token, with the space that SentencePiece writes as ▁. */
export function tokenText(tokenizer: ServedTokenizer, id: number): string {
  const spelled = tokenizer.idToToken(id);
  if (spelled === undefined) return '';
  if (spelled.includes('▁')) return spelled.replaceAll('▁', ' ');
  return tokenizer.decode([id], { skipSpecialTokens: false });
}

/** The bytes of one token: it may hold only a part of a character. */
export function tokenBytes(tokenizer: ServedTokenizer, id: number): number[] {
  const text = tokenText(tokenizer, id);
  if (!text.includes('\ufffd')) return [...encoder.encode(text)];
  const spelled = tokenizer.idToToken(id) ?? '';
  const byte = fallbackByte(spelled);
  return byte === undefined ? (bytesOfLetters(spelled) ?? [...encoder.encode(text)]) : [byte];
}

function likeliest(position: ReadonlyMap<number, Logprob>, count: number): [number, Logprob][] {
  return [...position].sort(([, a], [, b]) => b.logprob - a.logprob).slice(0, count);
}

/** JSON has no infinity; OpenAI writes a token that cannot come this way. */
function finite(logprob: number): number {
  return Number.isFinite(logprob) ? logprob : -9999;
}

/** `choices[].logprobs` of a chat: one entry a token. */
export function chatLogprobs(
  tokenizer: ServedTokenizer,
  tokenIds: readonly number[],
  logprobs: TokenLogprobs,
  count: number,
): { content: Record<string, unknown>[]; refusal: null } {
  const entry = (id: number, logprob: number) => ({
    token: tokenText(tokenizer, id),
    logprob: finite(logprob),
    bytes: tokenBytes(tokenizer, id),
  });
  return {
    content: tokenIds.map((id, at) => ({
      ...entry(id, logprobs[at]?.get(id)?.logprob ?? -9999),
      top_logprobs: likeliest(logprobs[at] ?? new Map(), count).map(([other, { logprob }]) => entry(other, logprob)),
    })),
    refusal: null,
  };
}

export interface CompletionLogprobs {
  readonly tokens: string[];
  readonly token_logprobs: (number | null)[];
  readonly top_logprobs: (Record<string, number> | null)[];
  readonly text_offset: number[];
}

/** `choices[].logprobs` of a completion. A position that has none (the first of a prompt) is null. */
export function completionLogprobs(
  tokenizer: ServedTokenizer,
  tokenIds: readonly number[],
  logprobs: TokenLogprobs,
  count: number,
  offset = 0,
): CompletionLogprobs {
  const texts = tokenIds.map((id) => tokenText(tokenizer, id));
  let at = offset;
  const offsets = texts.map((text) => {
    const start = at;
    at += text.length;
    return start;
  });
  const entries = tokenIds.map((id, position) => logprobs[position]?.get(id));
  return {
    tokens: texts,
    token_logprobs: entries.map((entry) => (entry === undefined ? null : finite(entry.logprob))),
    top_logprobs: entries.map((entry, position) => {
      if (entry === undefined) return null;
      const top: Record<string, number> = {};
      // The chosen token is always among them, as the count of the likeliest allows one more.
      for (const [id, { logprob }] of likeliest(logprobs[position]!, count))
        top[tokenText(tokenizer, id)] ??= finite(logprob);
      top[texts[position]!] ??= finite(entry.logprob);
      return top;
    }),
    text_offset: offsets,
  };
}
