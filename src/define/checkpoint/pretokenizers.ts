// How byte-level vocabularies cut text before merging, by GGUF's `tokenizer.ggml.pre`. The patterns are those of the models' own
// tokenizer.json files, with `(?i:…)` spelled out, which JavaScript's regular expressions do not have everywhere.

export interface PreTokenizer {
  /** Applied one after the other; each cuts out what it matches and leaves the rest between. */
  readonly patterns: readonly string[];
  /** A piece that is a token as a whole is not merged. */
  readonly ignoreMerges?: boolean;
  /** The beginning-of-text token is added unless the file says otherwise. */
  readonly addBos?: boolean;
  /** Text is composed (Unicode NFC) first. */
  readonly composed?: boolean;
}

const contractions = "'s|'t|'re|'ve|'m|'ll|'d";
const anyCase = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";
/** GPT-2's own: a space belongs to the word after it, digits run together. */
export const gpt2Pattern = `${contractions}| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+`;

/** The form that cl100k began: any one non-letter may lead a word, digits in groups of at most `digits`. */
const modern = (digits: string): string =>
  `${anyCase}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;

const upper = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]';
const lower = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]';
/** Words that also end where small letters turn to capitals. */
const cased = (tail: string, digits: string): string =>
  `[^\\r\\n\\p{L}\\p{N}]?${upper}*${lower}+${tail}|[^\\r\\n\\p{L}\\p{N}]?${upper}+${lower}*${tail}|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;

const gpt2: PreTokenizer = { patterns: [gpt2Pattern] };
const digitByDigit: PreTokenizer = { patterns: ['\\p{N}', gpt2Pattern] };
const llama3: PreTokenizer = { patterns: [modern('\\p{N}{1,3}')], ignoreMerges: true, addBos: true };
const qwen2: PreTokenizer = { patterns: [modern('\\p{N}')], composed: true };
const deepseekWords =
  '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const han = '[一-龥ࠀ-一가-퟿]+';

const table: readonly (readonly [names: string, pre: PreTokenizer])[] = [
  [
    'gpt-2 phi-2 gigachat a.x-4.0 mellum jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code roberta-bpe mpt olmo jais trillion exaone4',
    gpt2,
  ],
  ['gpt-neox', { ...gpt2, composed: true }],
  ['smollm starcoder refact command-r codeshell exaone minerva-7b granite', digitByDigit],
  ['llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2', llama3],
  ['dbrx smaug-bpe glm4 chatglm-bpe', { patterns: [modern('\\p{N}{1,3}')] }],
  ['qwen2 deepseek-r1-qwen megrez', qwen2],
  ['stablelm2 hunyuan', { patterns: [modern('\\p{N}')] }],
  ['tekken', { patterns: [cased('', '\\p{N}')], ignoreMerges: true, addBos: true }],
  ['gpt-4o llama4', { patterns: [cased(`${anyCase}?`, '\\p{N}{1,3}')] }],
  ['deepseek-v3 hunyuan-dense', { patterns: ['\\p{N}{1,3}', '[一-龥぀-ゟ゠-ヿ]+', deepseekWords] }],
  ['deepseek-coder', { patterns: ['[\\r\\n]', '\\s?\\p{L}+', '\\s?\\p{P}+', han, '\\p{N}'] }],
  ['falcon', { patterns: ['[\\p{P}\\$\\+<=>\\^~\\|`]+', gpt2Pattern, '[0-9][0-9][0-9]'] }],
  // llama.cpp's own cut for files that do not say which one they need.
  ['default', { patterns: ['[\\p{P}\\$\\+<=>\\^~\\|]+', gpt2Pattern, '\\p{N}+', '[0-9][0-9][0-9]'] }],
];

/** By the value of `tokenizer.ggml.pre`. */
export const preTokenizers: ReadonlyMap<string, PreTokenizer> = new Map(
  table.flatMap(([names, pre]) => names.split(' ').map((name) => [name, pre] as const)),
);
