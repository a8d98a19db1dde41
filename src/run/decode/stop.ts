// When a sequence ends, seen from its tokens. Stop texts are not here: they need a tokenizer, and who has it finishes the sequence from outside.
import type { TokenHistory } from './logits.ts';
import type { DecodingParams } from './sampling-params.ts';

/** 'stop': end token, stop token, stop word or stop text; 'length': maxTokens or maxSeqLen; 'cancelled': by the user. */
export type FinishReason = 'stop' | 'length' | 'timeout' | 'cancelled';
/** The token or text that stopped a sequence, the tokens of a stop word; undefined for the end token. */
export type StopReason = number | string | readonly number[] | undefined;

export interface Stop {
  readonly finishReason: FinishReason;
  readonly stopReason: StopReason;
  /** Tokens at the output's end that are not returned. */
  readonly numDropped: number;
}

/** True when the output of a sequence ends with `word`. */
function endsWith({ tokens, numTokens, promptLength }: TokenHistory, word: readonly number[]): boolean {
  const start = numTokens - word.length;
  return start >= promptLength && word.every((token, i) => tokens[start + i] === token);
}

/** Whether the sequence ends with its newest token. */
export function checkStop(history: TokenHistory, params: DecodingParams): Stop | undefined {
  const numGenerated = history.numTokens - history.promptLength;
  const token = history.tokens[history.numTokens - 1]!;
  const kept = params.includeStopStrInOutput;
  if (numGenerated >= params.minTokens) {
    if (token === params.endId) return { finishReason: 'stop', stopReason: undefined, numDropped: 0 };
    if (params.stopTokenIds.includes(token))
      return { finishReason: 'stop', stopReason: token, numDropped: kept ? 0 : 1 };
    const word = params.stopWords.find((candidate) => endsWith(history, candidate));
    if (word !== undefined) return { finishReason: 'stop', stopReason: word, numDropped: kept ? 0 : word.length };
  }
  if (numGenerated >= params.maxTokens) return { finishReason: 'length', stopReason: undefined, numDropped: 0 };
  return undefined;
}

/** How many of the newest tokens may turn out to be the beginning of a stop word: they are not given out yet. */
export function heldBack(history: TokenHistory, params: DecodingParams): number {
  if (params.includeStopStrInOutput) return 0;
  const numGenerated = history.numTokens - history.promptLength;
  let most = 0;
  for (const word of params.stopWords) {
    for (let length = Math.min(word.length - 1, numGenerated); length > most; length--) {
      if (endsWith(history, word.slice(0, length))) most = length;
    }
  }
  return most;
}
