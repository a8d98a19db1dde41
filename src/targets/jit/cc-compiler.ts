// The system's C compiler as a compiler of the kernel cache: cc, gcc or clang, whichever answers first.
import { execFile, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { arch, cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { CompileError } from '../../base/errors.ts';
import type { CompileInput, CompileOutput, Compiler } from './cache.ts';

const run = promisify(execFile);

/** Flags every CPU kernel is compiled with. Arithmetic may not be reordered: only products and sums join. */
export const cpuFlags: readonly string[] = [
  '-std=gnu11',
  '-D_GNU_SOURCE',
  '-O3',
  '-fno-math-errno',
  '-fno-trapping-math',
  '-ffp-contract=fast',
  '-fvisibility=hidden',
  '-pthread',
  '-fPIC',
];

/** A C compiler that answered. */
export interface CCompiler {
  readonly command: string;
  readonly version: string;
}

const candidates = ['cc', 'gcc', 'clang'];
/** A compiler that takes longer than this for anything of ours hangs. */
const limits = { version: 10_000, compile: 120_000 };

let found: CCompiler | Error | undefined;

/** The first C compiler that tells its version, or why there is none; asked once a process. */
export function findCCompiler(): CCompiler | Error {
  if (found !== undefined) return found;
  const failures: string[] = [];
  for (const command of candidates) {
    const { status, stdout, error, signal } = spawnSync(command, ['--version'], {
      encoding: 'utf8',
      timeout: limits.version,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const line = stdout?.split('\n')[0]?.trim() ?? '';
    if (error === undefined && status === 0 && line !== '') return (found = { command, version: line });
    failures.push(`${command}: ${reason(error, status, signal)}`);
  }
  return (found = new Error(failures.join(', ')));
}

function reason(error: Error | undefined, status: number | null, signal: string | null): string {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  if (code === 'ENOENT') return 'not found';
  if (code === 'EACCES') return 'not executable';
  if (code === 'ETIMEDOUT' || signal !== null) return `no answer in ${limits.version / 1000} s`;
  return error?.message ?? `exit status ${status}`;
}

/** What -march=native depends on: binaries of one machine are not run on another that shares the cache. */
export function cpuIdentity(): string {
  let text = `${arch()} ${cpus()[0]?.model ?? ''}`;
  try {
    text += /^(?:flags|Features)\s*:.*$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[0] ?? '';
  } catch {
    // Systems without /proc: the model's name must do.
  }
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

export function ccCompiler({ command, version }: CCompiler): Compiler {
  return {
    version: `${version}; ${cpuIdentity()}`,
    sourceFile: 'kernel.c',
    binaryFile: 'kernel.so',
    compile: (input) => compile(command, input),
  };
}

/** Writes the sources into a folder of their own, so that exactly the files of the key are compiled. */
async function compile(command: string, { name, text, includes, flags }: CompileInput): Promise<CompileOutput> {
  const folder = mkdtempSync(join(tmpdir(), 'typert-cc-'));
  try {
    for (const [path, content] of [...includes, [`${name}.c`, text] as const]) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), content);
    }
    const output = join(folder, 'kernel.so');
    const args = [...flags, '-shared', '-I', folder, join(folder, `${name}.c`), '-o', output, '-lm'];
    const { stderr } = await run(command, args, {
      timeout: limits.compile,
      maxBuffer: 64 << 20,
      killSignal: 'SIGKILL',
    });
    return { binary: readFileSync(output), log: stderr };
  } catch (error) {
    const { stderr, killed } = error as { stderr?: string; killed?: boolean };
    throw new CompileError(killed ? `${command} did not end in ${limits.compile / 1000} s` : `${command} failed`, {
      where: name,
      got: (stderr || String(error)).slice(0, 4000),
      remedy: 'Check the compiler, or use --target reference',
      cause: error,
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
