// The special tokens that a model folder declares, and the reading of the small JSON files that declare them. Works without a tokenizer, since a
// model driven by token ids still has to know where to stop.
import { ConfigError, show } from '../base/errors.ts';
import { isObject, type JsonObject } from '../define/checkpoint/json.ts';

/** A model's small text files by name relative to its folder, e.g. `tokenizer_config.json`. */
export type Assets = ReadonlyMap<string, string>;

export { isObject, type JsonObject };

/** The asset `name` as a JSON object; undefined when it is not there. Throws ConfigError when it is there and is not a JSON object. */
export function readJsonAsset(assets: Assets, name: string, label: string): JsonObject | undefined {
  const text = assets.get(name);
  if (text === undefined) return undefined;
  const where = `${label}/${name}`;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new ConfigError('not valid JSON', { where, remedy: 'Fetch the file again: it may be cut short', cause });
  }
  if (!isObject(value)) throw new ConfigError('wrong content', { where, expected: 'a JSON object', got: show(value) });
  return value;
}

const tokenNames = [
  'bos_token',
  'eos_token',
  'unk_token',
  'sep_token',
  'pad_token',
  'cls_token',
  'mask_token',
] as const;
export type SpecialTokenName = (typeof tokenNames)[number];

/** Special tokens by their Hugging Face names, as text; `null` entries of the file are left out. */
export interface SpecialTokenTexts extends Readonly<Partial<Record<SpecialTokenName, string>>> {
  readonly additional_special_tokens: readonly string[];
}

/** A token is written either as its text or as an object with the text under `content`. */
function tokenText(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  return isObject(value) && typeof value.content === 'string' ? value.content : undefined;
}

/** Reads `tokenizer_config.json`, and `special_tokens_map.json` for what the former leaves out. Throws ConfigError when either is damaged. */
export function readSpecialTokenTexts(assets: Assets, label: string): SpecialTokenTexts {
  const config = readJsonAsset(assets, 'tokenizer_config.json', label) ?? {};
  const map = readJsonAsset(assets, 'special_tokens_map.json', label) ?? {};
  const found: Partial<Record<SpecialTokenName, string>> = {};
  for (const name of tokenNames) {
    // An explicit null in tokenizer_config.json means "this model has none", so the map is asked only when the key is absent.
    const text = tokenText(name in config ? config[name] : map[name]);
    if (text !== undefined) found[name] = text;
  }
  const additional = config.additional_special_tokens ?? map.additional_special_tokens;
  const texts = Array.isArray(additional) ? additional.map(tokenText).filter((text) => text !== undefined) : [];
  return { ...found, additional_special_tokens: texts };
}

/** Ids that begin, end and pad a sequence. */
export interface SpecialTokenIds {
  readonly bosTokenId: number | undefined;
  /** Every id that ends a generation, the tokenizer's own end first; empty when the model declares none. */
  readonly eosTokenIds: readonly number[];
  readonly padTokenId: number | undefined;
}

function idsOf(file: JsonObject | undefined, key: string, where: string): number[] {
  const value = file?.[key];
  if (value === undefined || value === null) return [];
  const list: readonly unknown[] = Array.isArray(value) ? value : [value];
  return list.map((id) => {
    // Some published files say -1 for "none"; anything else that is no id is damage.
    if (typeof id === 'number' && Number.isSafeInteger(id)) return id;
    throw new ConfigError('not a token id', {
      where: `${where}: ${key}`,
      expected: 'an integer or a list',
      got: show(value),
    });
  });
}

/**
 * Merges what `tokenizer_config.json`, `generation_config.json` and `config.json` (also its `text_config`) say. `tokenToId` turns the tokenizer's
 * token texts into ids; without one only the ids that the configs state are known. Throws ConfigError for values that are no ids.
 */
export function readSpecialTokenIds(
  assets: Assets,
  label: string,
  tokenToId: (token: string) => number | undefined = () => undefined,
): SpecialTokenIds {
  const texts = readSpecialTokenTexts(assets, label);
  const generation = readJsonAsset(assets, 'generation_config.json', label);
  const config = readJsonAsset(assets, 'config.json', label);
  const nested = isObject(config?.text_config) ? config.text_config : undefined;
  const all = (name: 'bos_token' | 'eos_token' | 'pad_token'): number[] => {
    const text = texts[name];
    const own = text === undefined ? undefined : tokenToId(text);
    const ids = [
      ...(own === undefined ? [] : [own]),
      ...idsOf(generation, `${name}_id`, `${label}/generation_config.json`),
      ...idsOf(config, `${name}_id`, `${label}/config.json`),
      ...idsOf(nested, `${name}_id`, `${label}/config.json: text_config`),
    ];
    return [...new Set(ids)].filter((id) => id >= 0);
  };
  return { bosTokenId: all('bos_token')[0], eosTokenIds: all('eos_token'), padTokenId: all('pad_token')[0] };
}
