// Logs as JSON lines (pino). Prompts and answers are never in them; an error's cause is.
import { type Logger, pino } from 'pino';
import { UsageError } from '../base/errors.ts';
import { version } from '../base/version.ts';

export const logLevels = ['silent', 'error', 'warn', 'info', 'debug'] as const;

/** Options of `createLogger`. */
export interface LogOptions {
  /** Default 'info': a line a request. */
  readonly level?: (typeof logLevels)[number];
}

/** A logger that writes to stderr; stdout is left to what was asked for. */
export function createLogger({ level = 'info' }: LogOptions = {}): Logger {
  if (!logLevels.includes(level))
    throw new UsageError('no such level', { where: 'logLevel', expected: logLevels.join(', '), got: level });
  return pino(
    { level, base: { service: 'typert', version }, timestamp: pino.stdTimeFunctions.isoTime },
    pino.destination({ dest: 2, sync: false }),
  );
}
