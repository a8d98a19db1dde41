// What each field of SamplingParams may hold. A mapped type: a new field does not compile until it has its rule.
import type { SamplingParams } from './sampling-params.ts';

/** Beams of a request at most. */
export const maxBeamWidth = 16;

export interface Rule {
  /** What is accepted, in words. */
  readonly expected: string;
  readonly accepts: (value: unknown) => boolean;
  /** Set for fields that are known but not built yet. */
  readonly unsupported?: true;
}

function integer(least: number, most = Number.MAX_SAFE_INTEGER): Rule {
  return {
    expected: most === Number.MAX_SAFE_INTEGER ? `an integer ≥ ${least}` : `an integer from ${least} to ${most}`,
    accepts: (value) => Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most,
  };
}

function finite(expected: string, within: (value: number) => boolean = () => true): Rule {
  return { expected, accepts: (value) => typeof value === 'number' && Number.isFinite(value) && within(value) };
}

const flag: Rule = { expected: 'true or false', accepts: (value) => typeof value === 'boolean' };

const isTokenId = (value: unknown): boolean =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 0x7fffffff;
const isTokenIds = (value: unknown): boolean => Array.isArray(value) && value.every(isTokenId);
const isText = (value: unknown): boolean => typeof value === 'string' && value.length > 0;
const isBias = (value: unknown): boolean =>
  typeof value === 'number' && !Number.isNaN(value) && value !== Number.POSITIVE_INFINITY;

const tokenId: Rule = { expected: 'a token id, an integer ≥ 0', accepts: isTokenId };
const tokenIds: Rule = { expected: 'a list of token ids, integers ≥ 0', accepts: isTokenIds };
const words: Rule = {
  expected: 'a list of token sequences, none of them empty',
  accepts: (value) => Array.isArray(value) && value.every((word) => isTokenIds(word) && word.length > 0),
};
const texts: Rule = {
  expected: 'a text or a list of texts, none of them empty',
  accepts: (value) => isText(value) || (Array.isArray(value) && value.every(isText)),
};
const share = finite('a number from 0 to 1', (value) => value >= 0 && value <= 1);
const positiveShare = finite('a number above 0, to 1', (value) => value > 0 && value <= 1);
const number = finite('a finite number');

function unsupported(neutral: string, accepts: (value: unknown) => boolean): Rule {
  return { expected: neutral, accepts, unsupported: true };
}
const unset = unsupported('it left out', () => false);
const off = unsupported('false', (value) => value === false);

const bias: Rule = {
  expected: 'a list of numbers, one a token, or a Map from token id to number, each finite or -Infinity',
  accepts: (value) => {
    if (value instanceof Map) return [...value].every(([id, add]) => isTokenId(id) && isBias(add));
    return (value instanceof Float32Array || Array.isArray(value)) && Array.from(value).every(isBias);
  },
};
function isGuide(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const given = Object.entries(value).filter(([, entry]) => entry !== undefined);
  const [name, entry] = given[0] ?? [];
  if (given.length !== 1) return false;
  if (name === 'jsonObject') return entry === true;
  if (name === 'regex' || name === 'grammar') return isText(entry);
  if (name !== 'json' && name !== 'structuralTag') return false;
  return isText(entry) || (typeof entry === 'object' && entry !== null && !Array.isArray(entry));
}

const seed: Rule = {
  expected: 'an integer from 0 to 2^64 - 1 (a bigint above 2^53 - 1)',
  accepts: (value) =>
    typeof value === 'bigint'
      ? value >= 0n && value < 1n << 64n
      : Number.isSafeInteger(value) && (value as number) >= 0,
};

export const rules: { readonly [Field in keyof Required<SamplingParams>]: Rule } = {
  maxTokens: integer(1),
  minTokens: integer(0),
  n: integer(1, 1024),
  bestOf: integer(1, 1024),
  temperature: finite('a finite number ≥ 0', (value) => value >= 0),
  topK: integer(0),
  topP: share,
  minP: share,
  seed,
  repetitionPenalty: finite('a finite number > 0', (value) => value > 0),
  presencePenalty: number,
  frequencyPenalty: number,
  promptIgnoreLength: integer(0),
  noRepeatNgramSize: integer(0),
  embeddingBias: bias,
  bad: texts,
  badTokenIds: tokenIds,
  badWords: words,
  stop: texts,
  stopTokenIds: tokenIds,
  stopWords: words,
  includeStopStrInOutput: flag,
  endId: tokenId,
  padId: tokenId,
  ignoreEos: flag,
  logprobs: integer(0),
  promptLogprobs: integer(0),
  returnContextLogits: flag,
  returnGenerationLogits: flag,
  excludeInputFromOutput: flag,
  returnPerfMetrics: flag,
  truncatePromptTokens: integer(1),
  detokenize: flag,
  addSpecialTokens: flag,
  skipSpecialTokens: flag,
  spacesBetweenSpecialTokens: flag,
  useBeamSearch: flag,
  beamWidthArray: {
    expected: `a list of integers from 1 to ${maxBeamWidth}`,
    accepts: (value) =>
      Array.isArray(value) &&
      value.length > 0 &&
      value.every((width) => Number.isInteger(width) && width >= 1 && width <= maxBeamWidth),
  },
  beamSearchDiversityRate: finite('a finite number ≥ 0', (value) => value >= 0),
  lengthPenalty: number,
  earlyStopping: integer(0),
  topPMin: positiveShare,
  topPResetIds: tokenId,
  topPDecay: positiveShare,
  logitsProcessor: {
    expected: 'a function or a list of functions',
    accepts: (value) => [value].flat().length > 0 && [value].flat().every((each) => typeof each === 'function'),
  },
  applyBatchedLogitsProcessor: flag,
  guidedDecoding: {
    expected: 'an object with one of json, jsonObject: true, regex, grammar, structuralTag',
    accepts: isGuide,
  },
  lookaheadConfig: unset,
  additionalModelOutputs: unset,
  returnEncoderOutput: off,
};
