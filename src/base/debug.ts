// The debug ladder (TYPERT_DEBUG): 1 lifecycle, 2 time per kernel, 3 passes and choices, 4 graph text and stubs, 5 machine code. Lines go to stderr.
import { type Env, readEnv } from './env.ts';

let level: Env['debug'] | undefined;

/** True when `TYPERT_DEBUG` is at least `at`. Read once. */
export function debugging(at: 1 | 2 | 3 | 4 | 5): boolean {
  level ??= readEnv().debug;
  return level >= at;
}

/** Writes a line when `TYPERT_DEBUG` is at least `at`; the text is made only then. */
export function debug(at: 1 | 2 | 3 | 4 | 5, text: () => string): void {
  if (debugging(at)) process.stderr.write(`typert: ${text()}\n`);
}
