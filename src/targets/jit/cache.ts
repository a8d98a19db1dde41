// Compile and cache, one path for every compiler. A kernel's key is a hash of its name, the compiler's version, the flags, the stub and
// everything the stub includes; its folder holds the source, the binary and meta.json, and appears whole or not at all.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CompileError } from '../../base/errors.ts';
import { isFile, writeFolder } from '../../base/files.ts';
import { hashTexts, includeClosure, type SourceTree } from './sources.ts';

/** What is compiled: a stub over files of a source tree. */
export interface KernelSource {
  readonly name: string;
  readonly stub: string;
  /** Target and options in the compiler's words. */
  readonly flags: readonly string[];
}

/** NVRTC for CUDA C++, the system's cc for C. */
export interface Compiler {
  /** Name and version, part of the key. */
  readonly version: string;
  /** Names of the files in a kernel's folder. */
  readonly sourceFile: string;
  readonly binaryFile: string;
  /** Compiles the source text; `includes` holds every file it may include. Throws CompileError with the compiler's log. */
  compile(source: CompileInput): Promise<CompileOutput>;
}
export interface CompileInput {
  readonly name: string;
  readonly text: string;
  readonly includes: ReadonlyMap<string, string>;
  readonly flags: readonly string[];
}
export interface CompileOutput {
  readonly binary: Uint8Array;
  readonly log: string;
}

export interface CompiledKernel {
  readonly name: string;
  readonly key: string;
  readonly binary: Uint8Array;
  /** False when the binary came from the cache. */
  readonly compiled: boolean;
  readonly milliseconds: number;
}

export class KernelCache {
  readonly #folder: string;
  readonly #compiler: Compiler;
  readonly #tree: SourceTree;
  readonly #open = new Map<string, Promise<CompiledKernel>>();

  constructor(folder: string, compiler: Compiler, tree: SourceTree) {
    this.#folder = folder;
    this.#compiler = compiler;
    this.#tree = tree;
  }

  /** The key of a kernel and the files it includes. */
  key(source: KernelSource): { key: string; includes: Map<string, string> } {
    const includes = includeClosure(this.#tree, source.stub, source.name);
    const { version } = this.#compiler;
    const texts = [source.name, version, source.flags.join('\n'), source.stub, ...[...includes].flat()];
    return { key: hashTexts(texts), includes };
  }

  /** The binary, from the cache or compiled; calls for the same kernel share one compilation. */
  get(source: KernelSource): Promise<CompiledKernel> {
    const { key, includes } = this.key(source);
    const open = this.#open.get(key);
    if (open !== undefined) return open;
    const promise = this.#load(source, key, includes).catch((error: unknown) => {
      this.#open.delete(key);
      throw error;
    });
    this.#open.set(key, promise);
    return promise;
  }

  async #load(source: KernelSource, key: string, includes: ReadonlyMap<string, string>): Promise<CompiledKernel> {
    const folder = join(this.#folder, `${source.name}-${key}`);
    const binaryPath = join(folder, this.#compiler.binaryFile);
    if (isFile(binaryPath))
      return { name: source.name, key, binary: readFileSync(binaryPath), compiled: false, milliseconds: 0 };
    const start = performance.now();
    const output = await this.#compile(source, includes);
    const milliseconds = performance.now() - start;
    await writeFolder(folder, async (partial) => {
      writeFileSync(join(partial, this.#compiler.sourceFile), source.stub);
      writeFileSync(join(partial, this.#compiler.binaryFile), output.binary);
      const meta = {
        name: source.name,
        key,
        compiler: this.#compiler.version,
        flags: source.flags,
        includes: [...includes.keys()],
        milliseconds: Math.round(milliseconds),
        bytes: output.binary.length,
        log: output.log,
      };
      writeFileSync(join(partial, 'meta.json'), `${JSON.stringify(meta, null, 2)}\n`);
    });
    return { name: source.name, key, binary: output.binary, compiled: true, milliseconds };
  }

  /** Compiles; on failure keeps the flattened source beside the cache so that it can be looked at. */
  async #compile(source: KernelSource, includes: ReadonlyMap<string, string>): Promise<CompileOutput> {
    try {
      return await this.#compiler.compile({ name: source.name, text: source.stub, includes, flags: source.flags });
    } catch (error) {
      const kept = join(this.#folder, 'failed', source.name);
      await writeFolder(kept, async (partial) => {
        writeFileSync(join(partial, this.#compiler.sourceFile), source.stub);
        writeFileSync(join(partial, 'error.txt'), error instanceof Error ? error.message : String(error));
      });
      throw new CompileError(`kernel ${source.name} does not compile`, {
        where: kept,
        got: error instanceof Error ? error.message : String(error),
        remedy: 'What was compiled and what the compiler said is kept in that folder: please report it',
        cause: error,
      });
    }
  }
}
