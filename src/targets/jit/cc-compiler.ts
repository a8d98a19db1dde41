// The system's C compiler as a compiler of the kernel cache: cc, gcc or clang, whichever answers first.
import { execFile, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { arch, cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { readEnv } from '../../base/env.ts';
import { CompileError } from '../../base/errors.ts';
import type { CompileInput, CompileOutput, Compiler } from './cache.ts';
import { knownCompiler, rememberCompiler } from './known-compilers.ts';

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

/** The first C compiler that tells its version and makes a shared object, or why there is none; asked once a process, tried once a machine. */
export function findCCompiler(): CCompiler | Error {
  if (found !== undefined) return found;
  const { cacheDir, path } = readEnv();
  const file = join(cacheDir, 'compilers.json');
  const known = knownCompiler(candidates, path, file);
  found = known ?? searchCCompiler(candidates, limits.version);
  if (known === undefined && !(found instanceof Error)) rememberCompiler(found, path, file);
  return found;
}

/** As findCCompiler, among these commands; one that takes longer than `timeout` milliseconds hangs. */
export function searchCCompiler(commands: readonly string[], timeout: number): CCompiler | Error {
  const failures: string[] = [];
  for (const command of commands) {
    const version = ask(command, ['--version'], timeout);
    if (version instanceof Error) {
      failures.push(`${command}: ${version.message}`);
      continue;
    }
    const trial = tryOut(command, timeout);
    if (trial === undefined) return { command, version: version.split('\n')[0]!.trim() };
    failures.push(`${command}: ${trial}`);
  }
  return new Error(failures.join('; '));
}

/** Compiles a function of one line; what went wrong, or undefined. */
function tryOut(command: string, timeout: number): string | undefined {
  const folder = mkdtempSync(join(tmpdir(), 'typert-cc-'));
  try {
    const source = join(folder, 'try.c');
    writeFileSync(source, '#include <stdint.h>\nint32_t typert_try(void) { return 1; }\n');
    const said = ask(command, ['-O1', '-fPIC', '-shared', source, '-o', join(folder, 'try.so')], timeout);
    if (said instanceof Error) return `does not compile (${said.message})`;
    return existsSync(join(folder, 'try.so')) ? undefined : 'says that it compiled but wrote nothing';
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function ask(command: string, args: readonly string[], timeout: number): string | Error {
  const { status, stdout, stderr, error, signal } = spawnSync(command, args, {
    encoding: 'utf8',
    timeout,
    killSignal: 'SIGKILL',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  if (error === undefined && status === 0) return stdout;
  return new Error([reason(error, status, signal, timeout), stderr?.trim().split('\n')[0]].filter(Boolean).join(', '));
}

function reason(error: Error | undefined, status: number | null, signal: string | null, timeout: number): string {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  if (code === 'ENOENT') return 'not found';
  if (code === 'EACCES') return 'not executable';
  if (code === 'ETIMEDOUT' || signal !== null) return `no answer in ${timeout / 1000} s`;
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

/** The compiler for the kernel cache; one that takes longer than `timeout` milliseconds for a kernel is killed. */
export function ccCompiler({ command, version }: CCompiler, timeout = limits.compile): Compiler {
  return {
    version: `${version}; ${cpuIdentity()}`,
    sourceFile: 'kernel.c',
    binaryFile: 'kernel.so',
    compile: (input) => compile(command, input, timeout),
  };
}

/** Writes the sources into a folder of their own, so that exactly the files of the key are compiled. */
async function compile(
  command: string,
  { name, text, includes, flags }: CompileInput,
  timeout: number,
): Promise<CompileOutput> {
  const folder = mkdtempSync(join(tmpdir(), 'typert-cc-'));
  try {
    for (const [path, content] of [...includes, [`${name}.c`, text] as const]) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), content);
    }
    const output = join(folder, 'kernel.so');
    const args = [...flags, '-shared', '-I', folder, join(folder, `${name}.c`), '-o', output, '-lm'];
    const { stderr } = await run(command, args, {
      timeout,
      maxBuffer: 64 << 20,
      killSignal: 'SIGKILL',
    });
    return { binary: readFileSync(output), log: stderr };
  } catch (error) {
    const { stderr, killed } = error as { stderr?: string; killed?: boolean };
    throw new CompileError(killed ? `${command} did not end in ${timeout / 1000} s` : `${command} failed`, {
      where: name,
      got: (stderr || String(error)).slice(0, 4000),
      remedy:
        'Check the compiler; without one on PATH WebAssembly kernels run instead, and --target reference needs neither',
      cause: error,
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
