// NVRTC: CUDA C++ to machine code (cubin) or PTX, with no GPU and no driver. Used at build when it is found.
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { CompileError, TargetError } from '../../base/errors.ts';
import { addressOf, type Library, openLibrary, preload, textAt } from './library.ts';

const functions = {
  nvrtcVersion: ['i32', 'ptr', 'ptr'],
  nvrtcGetErrorString: ['ptr', 'i32'],
  nvrtcCreateProgram: ['i32', 'ptr', 'ptr', 'str', 'i32', 'ptr', 'ptr'],
  nvrtcDestroyProgram: ['i32', 'ptr'],
  nvrtcCompileProgram: ['i32', 'u64', 'i32', 'ptr'],
  nvrtcGetProgramLogSize: ['i32', 'u64', 'ptr'],
  nvrtcGetProgramLog: ['i32', 'u64', 'ptr'],
  nvrtcGetCUBINSize: ['i32', 'u64', 'ptr'],
  nvrtcGetCUBIN: ['i32', 'u64', 'ptr'],
  nvrtcGetPTXSize: ['i32', 'u64', 'ptr'],
  nvrtcGetPTX: ['i32', 'u64', 'ptr'],
} as const;

export interface NvrtcSource {
  readonly name: string;
  readonly text: string;
  /** Every file it may include, by the name in the #include line. */
  readonly includes: ReadonlyMap<string, string>;
}

/** Folders where CUDA's libraries live besides the loader's own paths; `extra` comes first. */
export function cudaLibraryNames(file: string, extra: readonly string[] = [], newest = 13): string[] {
  const folders = [
    ...extra,
    '/usr/local/cuda/lib64',
    '/usr/local/cuda/targets/x86_64-linux/lib',
    '/usr/local/cuda/targets/sbsa-linux/lib',
    '/opt/cuda/lib64',
  ];
  const versions = ['13', '12'].filter((version) => Number(version) <= newest);
  return [
    ...extra.flatMap((folder) => versions.map((version) => join(folder, `${file}.so.${version}`))),
    ...versions.map((version) => `${file}.so.${version}`),
    ...folders.flatMap((folder) => versions.map((version) => join(folder, `${file}.so.${version}`))),
    `${file}.so`,
  ];
}

export class Nvrtc implements Disposable {
  readonly #library: Library<typeof functions>;
  /** 'nvrtc 13.0'. */
  readonly version: string;
  readonly major: number;
  /** The name or path that it was opened by. */
  readonly path: string;

  private constructor(library: Library<typeof functions>) {
    this.#library = library;
    this.path = library.path;
    const major = new Int32Array(1);
    const minor = new Int32Array(1);
    library.fn.nvrtcVersion(major, minor);
    this.major = major[0]!;
    this.version = `nvrtc ${major[0]}.${minor[0]}`;
  }

  /** The library when it is found, in `folders` first, and of CUDA `newest` at most: drivers do not run what a newer one makes. */
  static find(folders: readonly string[] = [], newest?: number): Nvrtc | undefined {
    try {
      const nvrtc = Nvrtc.#open(cudaLibraryNames('libnvrtc', folders, newest));
      if (newest === undefined || nvrtc.major <= newest) return nvrtc;
      nvrtc[Symbol.dispose]();
      return undefined;
    } catch (error) {
      if (error instanceof TargetError) return undefined;
      throw error;
    }
  }

  /** The library that `path` names; throws TargetError when it does not load. */
  static at(path: string): Nvrtc {
    return Nvrtc.#open([path]);
  }

  static #open(names: readonly string[]): Nvrtc {
    const remedy = 'Install the CUDA toolkit, or the Python package nvidia-cuda-nvrtc.';
    const library = openLibrary({ what: 'NVRTC', names, functions, remedy });
    // NVRTC opens its builtins by their bare name, which the loader finds only where the library itself came by a bare name.
    const folder = dirname(library.path);
    if (folder !== '.')
      for (const file of readdirSync(folder))
        if (/^libnvrtc-builtins\.so\.\d+\.\d+$/.test(file)) preload(join(folder, file));
    return new Nvrtc(library);
  }

  [Symbol.dispose](): void {
    this.#library[Symbol.dispose]();
  }

  /** Compiles to a cubin of `--gpu-architecture=sm_…` in `flags`; throws CompileError with the compiler's log. */
  compile(source: NvrtcSource, flags: readonly string[]): { binary: Uint8Array; log: string } {
    const { fn } = this.#library;
    const keep: Uint8Array[] = [];
    const strings = (texts: readonly string[]): BigUint64Array =>
      BigUint64Array.from(texts, (text) => {
        const bytes = Buffer.from(`${text}\0`);
        keep.push(bytes);
        return addressOf(bytes);
      });
    const program = new BigUint64Array(1);
    const text = Buffer.from(`${source.text}\0`);
    const names = [...source.includes.keys()];
    const check = (call: string, code: number): void => {
      if (code !== 0)
        throw new CompileError(`${call} failed: ${textAt(fn.nvrtcGetErrorString(code) as bigint)}`, {
          where: source.name,
        });
    };
    const headers = strings([...source.includes.values()]);
    const headerNames = strings(names);
    check('nvrtcCreateProgram', fn.nvrtcCreateProgram(program, text, source.name, names.length, headers, headerNames));
    try {
      const handle = program[0]!;
      const options = strings(flags);
      const code = fn.nvrtcCompileProgram(handle, flags.length, options);
      const log = this.#text(handle, 'nvrtcGetProgramLogSize', 'nvrtcGetProgramLog').replace(/\0+$/, '').trim();
      if (code !== 0)
        throw new CompileError(`the kernel does not compile:\n${log}`, {
          where: source.name,
          got: textAt(fn.nvrtcGetErrorString(code) as bigint),
        });
      const size = new BigUint64Array(1);
      check('nvrtcGetCUBINSize', fn.nvrtcGetCUBINSize(handle, size));
      const binary = new Uint8Array(Number(size[0]));
      check('nvrtcGetCUBIN', fn.nvrtcGetCUBIN(handle, binary));
      return { binary, log };
    } finally {
      fn.nvrtcDestroyProgram(program);
      keep.length = 0;
    }
  }

  #text(handle: bigint, sizeOf: 'nvrtcGetProgramLogSize', read: 'nvrtcGetProgramLog'): string {
    const size = new BigUint64Array(1);
    this.#library.fn[sizeOf](handle, size);
    const bytes = new Uint8Array(Number(size[0]));
    this.#library.fn[read](handle, bytes);
    return Buffer.from(bytes).toString();
  }
}
