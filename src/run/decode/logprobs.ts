// Log-probabilities of tokens in a row of logits as the model computed it: no temperature, penalty or filter.
import { logSumExp, topTokens } from '../../kernels/sample/reference.ts';

/** The log-probability (natural logarithm) of one token at one position. */
export interface Logprob {
  readonly tokenId: number;
  readonly logprob: number;
  /** 1 for the likeliest token. */
  readonly rank: number;
}

/** Of one position: the token that stands there first, then the likeliest others in falling order. */
export type TokenLogprobs = readonly Logprob[];

/**
 * The log-probability of `token` and of the `count` likeliest tokens of a row: `count` entries when `token` is among them, else `count` + 1; at least one. A token's rank is one more
 * than the number of tokens with a greater logit (or an equal one and a lower id).
 */
export function tokenLogprobs(logits: Float32Array, token: number, count: number): TokenLogprobs {
  const norm = logSumExp(logits);
  const logit = logits[token]!;
  let rank = 1;
  for (let i = 0; i < logits.length; i++) if (logits[i]! > logit || (logits[i] === logit && i < token)) rank++;
  const entries: Logprob[] = [{ tokenId: token, logprob: logit - norm, rank }];
  if (count === 0) return entries;
  topTokens(logits, count).forEach((tokenId, i) => {
    if (tokenId !== token) entries.push({ tokenId, logprob: logits[tokenId]! - norm, rank: i + 1 });
  });
  return entries;
}
