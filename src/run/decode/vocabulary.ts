// The vocabulary of an engine's tokenizer as grammars need it, read from tokenizer.json beside the engine.
import { RequestError } from '../../base/errors.ts';
import type { GuidedDecodingConfig } from './guided.ts';

interface TokenizerJson {
  readonly model: { readonly vocab: Readonly<Record<string, number>> | readonly (readonly [string, number])[] };
  readonly added_tokens?: readonly { readonly id: number; readonly content: string; readonly special: boolean }[];
  readonly decoder?: unknown;
}

/** Throws RequestError when the engine came without a tokenizer. */
export function vocabularyOf(assets: ReadonlyMap<string, string>, vocabSize: number): GuidedDecodingConfig {
  const text = assets.get('tokenizer.json');
  if (text === undefined)
    throw new RequestError('guided decoding needs the tokenizer', {
      where: 'samplingParams.guidedDecoding',
      expected: 'an engine with tokenizer.json, or guidedDecodingConfig in the options of the executor',
    });
  const { model, added_tokens: added = [], decoder } = JSON.parse(text) as TokenizerJson;
  const encodedVocab: string[] = new Array(vocabSize).fill('');
  const entries = Array.isArray(model.vocab)
    ? model.vocab.map(([token], id): [string, number] => [token, id])
    : Object.entries(model.vocab);
  for (const [token, id] of entries) if (id < vocabSize) encodedVocab[id] = token;
  // A special token spells nothing: no grammar allows it but as an end.
  for (const { id, content, special } of added) if (id < vocabSize) encodedVocab[id] = special ? '' : content;
  const kinds = JSON.stringify(decoder ?? null);
  const vocabType = kinds.includes('"ByteLevel"')
    ? 'byte_level'
    : kinds.includes('"ByteFallback"')
      ? 'byte_fallback'
      : 'raw';
  return { encodedVocab, vocabType, stopTokenIds: endTokens(assets) };
}

function endTokens(assets: ReadonlyMap<string, string>): number[] {
  for (const name of ['generation_config.json', 'config.json']) {
    const { eos_token_id: ends } = JSON.parse(assets.get(name) ?? '{}') as { eos_token_id?: number | number[] };
    if (ends !== undefined && ends !== null) return [ends].flat();
  }
  return [];
}
