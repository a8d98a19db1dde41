// The pre-tokenizer of a tokenizer.json → an equal one made only of steps on which the JavaScript library and the Rust one agree: splits by a regular
// expression into matches and what lies between, and byte-level spelling without a pattern of its own. Patterns are in Oniguruma's syntax, as in the file.
import { isObject, type JsonObject } from './special-tokens.ts';

/** GPT-2's word pattern, which a byte-level step splits by unless told not to. Here `\s` is Unicode White_Space. */
const byteLevelPattern = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
/** Rust's is_punctuation: ASCII punctuation, among it characters that Unicode calls symbols, and category P. */
const punctuation = '[\\p{P}\\x21-\\x2F\\x3A-\\x40\\x5B-\\x60\\x7B-\\x7E]';

function isolate(regex: string): JsonObject {
  return { type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false };
}

function sequence(...pretokenizers: readonly unknown[]): JsonObject {
  return { type: 'Sequence', pretokenizers };
}

function patternText(pattern: unknown): string | undefined {
  if (!isObject(pattern)) return undefined;
  if (typeof pattern.Regex === 'string') return pattern.Regex;
  return typeof pattern.String === 'string' ? pattern.String.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&') : undefined;
}

/** The library splits every behaviour but `Removed` as `Isolated`; the others can be said as another pattern. `pattern` matches the separators. */
function splitBy(pattern: string, behavior: unknown): JsonObject {
  // 'MergedWithNext' in a file, 'merged_with_next' in the Python package.
  switch (String(behavior).toLowerCase().replaceAll('_', '')) {
    case 'contiguous':
      return isolate(`(?:${pattern})+`);
    case 'mergedwithprevious':
      // The second alternative takes the rest at once; without it every position of the rest would look for a separator again.
      return isolate(`[\\s\\S]*?(?:${pattern})|[\\s\\S]+`);
    case 'mergedwithnext':
      return isolate(`(?:${pattern})(?:(?!${pattern})[\\s\\S])*`);
    case 'removed':
      return { ...isolate(pattern), behavior: 'Removed' };
    default:
      return isolate(pattern);
  }
}

function rewriteSplit(step: JsonObject): JsonObject {
  const pattern = patternText(step.pattern);
  if (pattern === undefined) return step;
  if (step.invert !== true) return splitBy(pattern, step.behavior);
  // Inverted and removed keeps the matches only, which the library does; inverted and isolated is the same as isolated.
  return String(step.behavior).toLowerCase() === 'isolated' ? isolate(pattern) : step;
}

function rewriteByteLevel(step: JsonObject): JsonObject {
  if (step.use_regex === false) return step;
  const spell = { ...step, use_regex: false, add_prefix_space: false };
  const split = isolate(byteLevelPattern);
  if (step.add_prefix_space === false) return sequence(split, spell);
  // The space (which Rust adds unless told not to) comes before the split. Metaspace with a space as its mark does nothing but prepend it.
  const prefix = { type: 'Metaspace', replacement: ' ', prepend_scheme: 'always', split: false };
  return sequence(prefix, split, spell);
}

function rewriteMetaspace(step: JsonObject): JsonObject {
  if (step.split === false) return step;
  // Rust also cuts before each mark unless told not to; the library only marks.
  const mark = typeof step.replacement === 'string' ? step.replacement : '\u2581';
  return sequence({ ...step, split: false }, splitBy(patternText({ String: mark })!, 'MergedWithNext'));
}

/** Rewrites one step and the steps inside it; what needs no change, or is unknown, comes back as it is (a missing one as null). */
export function rewritePreTokenizer(step: unknown): unknown {
  if (!isObject(step)) return step ?? null;
  switch (step.type) {
    case 'Sequence':
      if (!Array.isArray(step.pretokenizers)) return step;
      return { ...step, pretokenizers: step.pretokenizers.map(rewritePreTokenizer) };
    case 'Split':
      return rewriteSplit(step);
    case 'Punctuation':
      return splitBy(punctuation, step.behavior ?? 'Isolated');
    case 'Digits':
      // Numbers of any kind, as Rust's is_numeric; the library knows decimal digits only.
      return isolate(step.individual_digits === true ? '\\p{N}' : '\\p{N}+');
    case 'ByteLevel':
      return rewriteByteLevel(step);
    case 'Metaspace':
      return rewriteMetaspace(step);
    default:
      return step;
  }
}
