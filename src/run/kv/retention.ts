// How long blocks stay in the cache once nobody uses them: TensorRT-LLM's KvCacheRetentionConfig in camelCase.
import { RequestError, show } from '../../base/errors.ts';

/** Priority of blocks for which nothing is said; 0 goes first, 100 last. */
export const defaultPriority = 35;

/** Priority of the blocks of a stretch of the prompt. */
export interface TokenRangeRetentionConfig {
  /** First token of the range. */
  readonly tokenStart: number;
  /** One past the last token; left out: to the end of the prompt. */
  readonly tokenEnd?: number;
  /** From 0 (goes first) to 100 (goes last). */
  readonly priority: number;
  /** Milliseconds after the last use for which the priority holds; then it is 35 again. Left out: for ever. */
  readonly durationMs?: number;
}

/** Priorities of a request's blocks. A block counts to the range that its first token is in. */
export interface KvCacheRetentionConfig {
  readonly tokenRangeRetentionConfigs?: readonly TokenRangeRetentionConfig[];
  /** Of the blocks that hold generated tokens; default 35. */
  readonly decodeRetentionPriority?: number;
  readonly decodeDurationMs?: number;
}

export interface BlockRetention {
  readonly priority: number;
  readonly durationMs: number | undefined;
}

/** Throws RequestError that names the field when a config is not one, or ranges overlap. */
export function checkRetention(config: KvCacheRetentionConfig): void {
  const at = (field: string) => `kvCacheRetentionConfig.${field}`;
  const check = (field: string, value: unknown, expected: string, accepts: (value: number) => boolean): void => {
    if (value !== undefined && !(typeof value === 'number' && accepts(value)))
      throw new RequestError('not acceptable', { where: at(field), expected, got: show(value) });
  };
  const isPriority = (value: number): boolean => Number.isInteger(value) && value >= 0 && value <= 100;
  const isDuration = (value: number): boolean => value >= 0;
  check('decodeRetentionPriority', config.decodeRetentionPriority, 'an integer from 0 to 100', isPriority);
  check('decodeDurationMs', config.decodeDurationMs, 'milliseconds ≥ 0', isDuration);
  let end = 0;
  config.tokenRangeRetentionConfigs?.forEach((range, i) => {
    const name = (field: string) => `tokenRangeRetentionConfigs[${i}].${field}`;
    check(name('priority'), range.priority ?? Number.NaN, 'an integer from 0 to 100', isPriority);
    check(name('durationMs'), range.durationMs, 'milliseconds ≥ 0', isDuration);
    check(
      name('tokenStart'),
      range.tokenStart ?? Number.NaN,
      `an integer ≥ ${end}, the end of the range before`,
      (value) => Number.isSafeInteger(value) && value >= end,
    );
    check(name('tokenEnd'), range.tokenEnd, `more than tokenStart = ${range.tokenStart}`, (v) => v > range.tokenStart);
    end = range.tokenEnd ?? Number.POSITIVE_INFINITY;
  });
}

/** The retention of the block whose first token is at `position`; undefined when the config says nothing of it. */
export function retentionAt(
  config: KvCacheRetentionConfig | undefined,
  position: number,
  promptLength: number,
): BlockRetention | undefined {
  if (config === undefined) return undefined;
  if (position >= promptLength) {
    const { decodeRetentionPriority, decodeDurationMs } = config;
    if (decodeRetentionPriority === undefined) return undefined;
    return { priority: decodeRetentionPriority, durationMs: decodeDurationMs };
  }
  const range = config.tokenRangeRetentionConfigs?.find(
    ({ tokenStart, tokenEnd = promptLength }) => position >= tokenStart && position < tokenEnd,
  );
  return range === undefined ? undefined : { priority: range.priority, durationMs: range.durationMs };
}
