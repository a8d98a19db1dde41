// What the command line shows besides results: progress on stderr (a bar on a terminal, plain lines otherwise) and errors.
import { TypertError, UsageError } from '../base/errors.ts';
import type { Progress } from '../base/progress.ts';
import { findTarget } from '../targets/index.ts';
import type { TargetName } from '../targets/target.ts';

const units = ['B', 'kB', 'MB', 'GB', 'TB'];

/** 14741696 → '14.7 MB' (decimal units, as disks and downloads are sold). */
export function formatBytes(bytes: number): string {
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), units.length - 1);
  const value = bytes / 1000 ** power;
  return `${power === 0 ? value : value.toFixed(value < 10 ? 2 : 1)} ${units[power]}`;
}

export function formatSeconds(milliseconds: number): string {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

interface Running {
  readonly task: string;
  readonly started: number;
  shown: number;
  line: string;
}

/** A progress listener for stderr; `finish` clears the bar. */
export function terminalProgress(stream: NodeJS.WriteStream = process.stderr): {
  readonly progress: Progress;
  finish(): void;
} {
  const tty = stream.isTTY === true;
  let running: Running | undefined;
  const finish = (): void => {
    if (running === undefined) return;
    if (tty) stream.write('\r\x1b[K');
    running = undefined;
  };
  const progress: Progress = ({ task, done, total, unit, item }) => {
    const now = Date.now();
    if (running?.task !== task) {
      finish();
      running = { task, started: now, shown: 0, line: '' };
      if (!tty)
        stream.write(
          `${task}${total === undefined ? '' : `: ${unit === 'bytes' ? formatBytes(total) : `${total} steps`}`}\n`,
        );
    }
    const complete = total !== undefined && done >= total;
    if (tty) {
      // Ten times a second is as often as anyone reads.
      if (now - running.shown < 100 && !complete) return;
      running.shown = now;
      const amount = unit === 'bytes' ? formatBytes(done) : String(done);
      const of = total === undefined ? '' : ` of ${unit === 'bytes' ? formatBytes(total) : total}`;
      const share = total === undefined || total === 0 ? 0 : Math.min(done / total, 1);
      const bar = total === undefined ? '' : ` [${'█'.repeat(Math.round(share * 24)).padEnd(24, '·')}]`;
      const width = (stream.columns ?? 80) - 1;
      stream.write(`\r\x1b[K${`${task}${bar} ${amount}${of}  ${item ?? ''}`.slice(0, width)}`);
    } else if (now - running.started > 5000 && now - running.shown > 5000 && !complete && total !== undefined) {
      running.shown = now;
      stream.write(`${task}: ${Math.floor((100 * done) / total)} %\n`);
    }
    if (complete) finish();
  };
  return { progress, finish };
}

/** One line on stderr when the target that will run could be quicker, with what to do. */
export function adviseSpeed(name: TargetName | 'auto'): void {
  const target = findTarget(name);
  const status = target.probe();
  if (status.available && status.builds !== false && status.remedy !== undefined)
    process.stderr.write(`typert: ${target.name}: ${status.detail}. ${status.remedy}.\n`);
}

/** Writes an error for people, or as JSON, and gives the exit code: 2 for wrong usage, 1 for everything else. */
export function reportError(error: unknown, options: { readonly json: boolean; readonly debug: boolean }): 1 | 2 {
  const code = error instanceof UsageError ? 2 : 1;
  const known = error instanceof TypertError;
  const name = error instanceof Error ? error.name : 'Error';
  const message = error instanceof Error ? error.message : String(error);
  if (options.json) {
    const { where, expected, got, remedy } = known ? error : {};
    process.stderr.write(`${JSON.stringify({ error: { type: name, message, where, expected, got, remedy } })}\n`);
  } else {
    process.stderr.write(`typert: ${known ? '' : `unexpected ${name}: `}${message}\n`);
    if (!known)
      process.stderr.write('This is a fault of TypeRT; please report it with the output of TYPERT_DEBUG=1.\n');
  }
  if ((options.debug || (!known && !options.json)) && error instanceof Error && error.stack !== undefined)
    process.stderr.write(`${error.stack}\n`);
  return code;
}
