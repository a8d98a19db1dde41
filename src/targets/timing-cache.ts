// Times of kernels measured on devices, in a JSON file that people read, edit and carry along: device → problem → size → one line a candidate.
// A line counts only for the source it was measured with. Writers take turns and add to what is there, so that several builds share one file.
import { closeSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import * as z from 'zod';
import { CompileError } from '../base/errors.ts';
import type { KernelChoice } from './plan.ts';

/** One candidate's time. */
export interface Timing {
  readonly us: number;
  readonly config: KernelChoice['config'];
  /** A hash or version of the code that was timed. */
  readonly source: string;
}

const timing = z.object({
  us: z.number().nonnegative(),
  config: z.record(z.string(), z.unknown()),
  source: z.string(),
});
const sizes = z.record(z.string(), z.array(timing));
const schema = z.object({
  format: z.literal('typert timings 1'),
  devices: z.record(z.string(), z.record(z.string(), sizes)),
});
type Contents = z.infer<typeof schema>;

function parse(file: string, text: string): Contents {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw unreadable(file, (error as Error).message, error);
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  throw unreadable(file, z.prettifyError(parsed.error).split('\n').slice(0, 3).join(' '));
}

function unreadable(file: string, got: string, cause?: unknown): CompileError {
  return new CompileError('timing cache cannot be read', {
    where: file,
    expected: 'JSON as an earlier build wrote it',
    got,
    remedy: 'Repair or remove the file: what is missing is timed again',
    cause,
  });
}

function read(file: string): Contents {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { format: 'typert timings 1', devices: {} };
    throw unreadable(file, (error as Error).message, error);
  }
  return parse(file, text);
}

/** One line a candidate, fastest first. */
function print({ format, devices }: Contents): string {
  const block = (entries: readonly string[], indent: string, [open, close]: readonly [string, string]): string =>
    entries.length === 0
      ? open + close
      : `${open}\n${entries.map((entry) => `${indent}  ${entry}`).join(',\n')}\n${indent}${close}`;
  const object = <T>(of: Readonly<Record<string, T>>, indent: string, each: (value: T, indent: string) => string) =>
    block(
      Object.entries(of).map(([key, value]) => `${JSON.stringify(key)}: ${each(value, `${indent}  `)}`),
      indent,
      ['{', '}'],
    );
  const lines = (timings: readonly Timing[], indent: string): string =>
    block(
      timings.map(({ us, config, source }) => JSON.stringify({ us, config, source })),
      indent,
      ['[', ']'],
    );
  const text = object(devices, '  ', (problems, at) =>
    object(problems, at, (bySize, deeper) => object(bySize, deeper, lines)),
  );
  return `{\n  "format": ${JSON.stringify(format)},\n  "devices": ${text}\n}\n`;
}

const sameConfig = (a: Timing['config'], b: Timing['config']): boolean => JSON.stringify(a) === JSON.stringify(b);

/** The later line of a config replaces the earlier. */
function merged(before: readonly Timing[], added: readonly Timing[]): Timing[] {
  const kept = before.filter(({ config }) => !added.some((timing) => sameConfig(timing.config, config)));
  return [...kept, ...added].sort((a, b) => a.us - b.us);
}

/** A lock older than this was left by a process that died. */
const staleLock = 30_000;

function locked<T>(file: string, work: () => T): T {
  const lock = `${file}.lock`;
  const patience = Date.now() + 2 * staleLock;
  for (;;) {
    try {
      closeSync(openSync(lock, 'wx'));
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || Date.now() > patience) throw error;
      const age = Date.now() - (statSync(lock, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
      if (age > staleLock) rmSync(lock, { force: true });
      else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    }
  }
  try {
    return work();
  } finally {
    rmSync(lock, { force: true });
  }
}

/** The times of one device. */
export class TimingCache {
  readonly file: string;
  readonly #device: string;
  readonly #known: Contents['devices'][string];
  readonly #added = new Map<string, Map<number, Timing[]>>();

  /** Reads `file`, where it is there. Throws CompileError when it is damaged. */
  constructor(file: string, device: string) {
    this.file = file;
    this.#device = device;
    this.#known = read(file).devices[device] ?? {};
  }

  /** Microseconds of a candidate of this source, where it was timed. */
  find(problem: string, size: number, config: Timing['config'], source: string): number | undefined {
    const timings = [...(this.#added.get(problem)?.get(size) ?? []), ...(this.#known[problem]?.[size] ?? [])];
    return timings.find((timing) => timing.source === source && sameConfig(timing.config, config))?.us;
  }

  /** What is known of a problem at a size, fastest first. */
  at(problem: string, size: number): readonly Timing[] {
    return merged(this.#known[problem]?.[size] ?? [], this.#added.get(problem)?.get(size) ?? []);
  }

  add(problem: string, size: number, timing: Timing): void {
    let bySize = this.#added.get(problem);
    if (bySize === undefined) this.#added.set(problem, (bySize = new Map()));
    bySize.set(size, merged(bySize.get(size) ?? [], [timing]));
  }

  /** Adds what is new to the file, beside what others have added meanwhile. Throws CompileError when it cannot be written. */
  save(): void {
    if (this.#added.size === 0) return;
    try {
      mkdirSync(dirname(this.file), { recursive: true });
      locked(this.file, () => {
        const contents = read(this.file);
        const problems = (contents.devices[this.#device] ??= {});
        for (const [problem, bySize] of this.#added)
          for (const [size, timings] of bySize) {
            const place = (problems[problem] ??= {});
            place[size] = merged(place[size] ?? [], timings);
          }
        const partial = `${this.file}.${process.pid}.partial`;
        writeFileSync(partial, print(contents));
        renameSync(partial, this.file);
      });
    } catch (error) {
      if (error instanceof CompileError) throw error;
      throw new CompileError('timing cache cannot be written', {
        where: this.file,
        got: (error as Error).message,
        remedy: 'Choose another file (--timing-cache), or free space',
        cause: error,
      });
    }
  }
}
