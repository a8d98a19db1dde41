// NVRTC as a compiler of the kernel cache. It holds a lock while it compiles, so that several kernels are compiled by several processes.
import { type ChildProcess, fork } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CompileError, deserializeError } from '../../base/errors.ts';
import type { Nvrtc } from '../ffi/nvrtc.ts';
import type { CompileInput, CompileOutput, Compiler } from './cache.ts';
import type { CompileAnswer, CompileJob } from './nvrtc-process.ts';

/** Flags every CUDA kernel is compiled with. */
export function cudaFlags(arch: string): string[] {
  return [`--gpu-architecture=${arch}`, '--std=c++17', '--device-int128', '--extra-device-vectorization'];
}

/** NVRTC in this process and thread: one kernel after the other, and nothing else meanwhile. */
export function nvrtcCompiler(nvrtc: Nvrtc): Compiler {
  return {
    version: nvrtc.version,
    sourceFile: 'kernel.cu',
    binaryFile: 'kernel.cubin',
    compile: async ({ name, text, includes, flags }) => nvrtc.compile({ name: `${name}.cu`, text, includes }, flags),
  };
}

/** More processes than this gain little: the longest kernel takes seconds. One processor is left to this thread. */
const maxProcesses = 16;

interface Job {
  readonly input: CompileInput;
  readonly resolve: (output: CompileOutput) => void;
  readonly reject: (error: Error) => void;
}

/** As nvrtcCompiler, in processes of their own that start when there is work and end on disposal. */
export class NvrtcProcesses implements Compiler, Disposable {
  readonly version: string;
  readonly sourceFile = 'kernel.cu';
  readonly binaryFile = 'kernel.cubin';
  readonly #path: string;
  readonly #limit: number;
  readonly #waiting: Job[] = [];
  readonly #idle: ChildProcess[] = [];
  readonly #busy = new Map<ChildProcess, Job>();
  #nextId = 0;

  constructor(
    nvrtc: Pick<Nvrtc, 'version' | 'path'>,
    limit: number = Math.max(1, Math.min(availableParallelism() - 1, maxProcesses)),
  ) {
    this.version = nvrtc.version;
    this.#path = nvrtc.path;
    this.#limit = limit;
  }

  /** False where the sources run as they are and Node.js cannot start a process from them. */
  static get possible(): boolean {
    return extname(import.meta.url) === '.js' || Boolean((process.features as { typescript?: unknown }).typescript);
  }

  compile(input: CompileInput): Promise<CompileOutput> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ input, resolve, reject });
      this.#next();
    });
  }

  #next(): void {
    while (this.#waiting.length > 0) {
      const child = this.#idle.pop() ?? (this.#busy.size < this.#limit ? this.#start() : undefined);
      if (child === undefined) return;
      const job = this.#waiting.shift()!;
      this.#busy.set(child, job);
      hold(child, true);
      child.send({ id: this.#nextId++, input: job.input } satisfies CompileJob);
    }
  }

  #start(): ChildProcess {
    const entry = new URL(`./nvrtc-process${extname(import.meta.url)}`, import.meta.url);
    const child = fork(fileURLToPath(entry), [this.#path], {
      execArgv: [],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    child.on('message', (answer: CompileAnswer) => {
      const job = this.#busy.get(child);
      this.#busy.delete(child);
      hold(child, false);
      this.#idle.push(child);
      if (job !== undefined) {
        if ('output' in answer) job.resolve(answer.output);
        else job.reject(deserializeError(answer.error));
      }
      this.#next();
    });
    const gone = (got: string, cause?: unknown): void => {
      const job = this.#busy.get(child);
      this.#busy.delete(child);
      const at = this.#idle.indexOf(child);
      if (at >= 0) this.#idle.splice(at, 1);
      job?.reject(
        new CompileError('the process that compiles kernels ended', {
          where: job.input.name,
          got,
          remedy: 'Check the memory and process limits of this machine',
          cause,
        }),
      );
      this.#next();
    };
    child.on('error', (error) => gone(error.message, error));
    child.on('exit', (code, signal) => gone(signal ?? `exit code ${code}`));
    return child;
  }

  [Symbol.dispose](): void {
    for (const job of this.#waiting.splice(0)) job.reject(new CompileError('the compiler was closed'));
    for (const child of [...this.#idle.splice(0), ...this.#busy.keys()]) child.disconnect();
  }
}

/** An idle process does not keep its parent alive. */
function hold(child: ChildProcess, wanted: boolean): void {
  if (wanted) {
    child.ref();
    child.channel?.ref();
  } else {
    child.unref();
    child.channel?.unref();
  }
}
