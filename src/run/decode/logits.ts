// Processors that change one row of logits on the host before it is sampled, in the order and with the meaning of Hugging Face transformers
// (generation/logits_process.py) where it has them: bias → repetition → presence, frequency → no-repeat n-grams → bad words → minimum length.
// Two differences, both on purpose: presence and frequency penalties are TensorRT-LLM's, and a multi-token bad word also counts when the text is exactly its beginning.
import type { DecodingParams } from './sampling-params.ts';

/** The tokens of a sequence so far: prompt, then output. */
export interface TokenHistory {
  /** At least `numTokens` long. */
  readonly tokens: Int32Array;
  readonly numTokens: number;
  readonly promptLength: number;
}

/** Changes a row of logits [vocabSize] in place. Called once for each token of one sequence, with a history that only grows. */
export type LogitsProcessor = (logits: Float32Array, history: TokenHistory) => void;

const banned = Number.NEGATIVE_INFINITY;

/** The processors that a request asks for, fresh for one sequence: they keep what they have counted. */
export function createLogitsProcessors(params: DecodingParams): LogitsProcessor[] {
  const { embeddingBias, repetitionPenalty, presencePenalty, frequencyPenalty, noRepeatNgramSize, badWords } = params;
  const processors: LogitsProcessor[] = [];
  if (embeddingBias !== undefined) processors.push(addBias(embeddingBias));
  if (repetitionPenalty !== 1) processors.push(penalizeRepetition(repetitionPenalty));
  if (presencePenalty !== 0 || frequencyPenalty !== 0)
    processors.push(penalizeOccurrence(presencePenalty, frequencyPenalty, params.promptIgnoreLength));
  if (noRepeatNgramSize > 0) processors.push(banRepeatedNgrams(noRepeatNgramSize));
  if (badWords.length > 0) processors.push(banWords(badWords));
  const ends = endings(params);
  if (params.minTokens > 0 && ends.length > 0) processors.push(banEndings(params.minTokens, ends));
  return processors;
}

/** How many different tokens can end a sequence, at most. */
export function numEndings({ endId, stopTokenIds, stopWords }: DecodingParams): number {
  return (endId === undefined ? 0 : 1) + stopTokenIds.length + stopWords.length;
}

/** Single tokens that end a sequence. */
function endings({ endId, stopTokenIds, stopWords }: DecodingParams): number[] {
  const words = stopWords.filter((word) => word.length === 1).map((word) => word[0]!);
  return [...(endId === undefined ? [] : [endId]), ...stopTokenIds, ...words];
}

export function addBias(bias: ReadonlyMap<number, number> | Float32Array): LogitsProcessor {
  return (logits) => {
    if (bias instanceof Float32Array) for (let i = 0; i < logits.length; i++) logits[i]! += bias[i]!;
    else for (const [token, add] of bias) logits[token]! += add;
  };
}

/** Repetition penalty of CTRL (Keskar et al. 2019): a positive logit is divided by it, a negative one multiplied. */
export function penalizeRepetition(penalty: number): LogitsProcessor {
  const seen = new Set<number>();
  let counted = 0;
  return (logits, { tokens, numTokens }) => {
    for (; counted < numTokens; counted++) seen.add(tokens[counted]!);
    for (const token of seen) logits[token] = logits[token]! < 0 ? logits[token]! * penalty : logits[token]! / penalty;
  };
}

/** Presence and frequency penalties of TensorRT-LLM: over prompt and output, without the prompt's first `ignored` tokens. */
export function penalizeOccurrence(presence: number, frequency: number, ignored: number): LogitsProcessor {
  const counts = new Map<number, number>();
  let counted = 0;
  return (logits, { tokens, numTokens, promptLength }) => {
    if (counted === 0) counted = Math.min(ignored, promptLength);
    for (; counted < numTokens; counted++) counts.set(tokens[counted]!, (counts.get(tokens[counted]!) ?? 0) + 1);
    for (const [token, count] of counts) logits[token]! -= presence + frequency * count;
  };
}

/** Bans every token that would complete an n-gram of this size that prompt and output hold already. */
export function banRepeatedNgrams(size: number): LogitsProcessor {
  return (logits, { tokens, numTokens }) => {
    const prefix = numTokens - (size - 1);
    if (prefix < 0) return;
    for (let start = 0; start + size <= numTokens; start++) {
      let same = 0;
      while (same < size - 1 && tokens[start + same] === tokens[prefix + same]) same++;
      if (same === size - 1) logits[tokens[start + same]!] = banned;
    }
  };
}

/** Bans each word's last token where the text ends with the rest of the word. */
export function banWords(words: readonly (readonly number[])[]): LogitsProcessor {
  return (logits, { tokens, numTokens }) => {
    for (const word of words) {
      const prefix = numTokens - (word.length - 1);
      if (prefix >= 0 && word.every((token, i) => i === word.length - 1 || token === tokens[prefix + i]))
        logits[word[word.length - 1]!] = banned;
    }
  };
}

/** Bans the tokens that end a sequence while the output has fewer than `minTokens`. */
export function banEndings(minTokens: number, endings: readonly number[]): LogitsProcessor {
  return (logits, { numTokens, promptLength }) => {
    if (numTokens - promptLength >= minTokens) return;
    for (const token of endings) logits[token] = banned;
  };
}
