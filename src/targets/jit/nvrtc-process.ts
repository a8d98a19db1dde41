// Entry of a process that compiles CUDA kernels: sources in, binaries out, until its parent goes. NVRTC compiles one at a time in a process.
import { type SerializedError, serializeError } from '../../base/errors.ts';
import { Nvrtc } from '../ffi/nvrtc.ts';
import type { CompileInput, CompileOutput } from './cache.ts';

export interface CompileJob {
  readonly id: number;
  readonly input: CompileInput;
}
export type CompileAnswer = { readonly id: number } & (
  | { readonly output: CompileOutput }
  | { readonly error: SerializedError }
);

const [path] = process.argv.slice(2);
if (process.send !== undefined && path !== undefined) {
  const nvrtc = Nvrtc.at(path);
  const parent = process.ppid;
  process.on('message', ({ id, input }: CompileJob) => {
    // What a parent that was killed still had in the pipe nobody wants.
    if (process.ppid !== parent) process.exit();
    let answer: CompileAnswer;
    try {
      const { name, text, includes, flags } = input;
      answer = { id, output: nvrtc.compile({ name: `${name}.cu`, text, includes }, flags) };
    } catch (error) {
      answer = { id, error: serializeError(error) };
    }
    process.send!(answer, (error: Error | null) => {
      if (error !== null) process.exit();
    });
  });
  // A terminal's interrupt goes to the whole group; the parent decides.
  process.on('SIGINT', () => {});
}
