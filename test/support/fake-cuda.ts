// A machine with a pretended GPU: stand-ins for NVIDIA's libraries, compiled by the system's cc, in front of which the command line runs.
import { execFile, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type CliResult, typert } from './cli.ts';

const sources = fileURLToPath(new URL('./fake-cuda', import.meta.url));
const libraries = { cuda: 'libcuda.so.1', nvrtc: 'libnvrtc.so.13', cublaslt: 'libcublasLt.so.13' } as const;
export type FakeLibrary = keyof typeof libraries;

export const hasCompiler = process.platform === 'linux' && spawnSync('cc', ['--version']).status === 0;

export class FakeGpu {
  readonly #folder: string;
  readonly cache: string;

  /** Compiles the stand-ins into `folder`. */
  constructor(folder: string) {
    this.#folder = folder;
    this.cache = join(folder, 'cache');
    for (const [name, file] of Object.entries(libraries)) {
      const args = ['-O1', '-w', '-shared', '-fPIC', join(sources, `${name}.c`), '-o', join(folder, file)];
      const { status, stderr } = spawnSync('cc', args, { encoding: 'utf8' });
      if (status !== 0) throw new Error(`cc: ${stderr}`);
    }
  }

  /** The environment of a process that finds only these libraries. */
  env(found: readonly FakeLibrary[] = ['cuda', 'nvrtc']): Record<string, string> {
    const libs = join(this.#folder, found.join('-') || 'none');
    mkdirSync(libs, { recursive: true });
    for (const name of found)
      if (!existsSync(join(libs, libraries[name])))
        copyFileSync(join(this.#folder, libraries[name]), join(libs, libraries[name]));
    return { LD_LIBRARY_PATH: libs, TYPERT_CACHE: this.cache };
  }

  /** Runs `fake-cuda/NAME.mjs` before all of them; what it prints, as JSON. */
  async script(
    name: string,
    args: readonly string[],
    vars: Record<string, string> = {},
  ): Promise<Record<string, number | object>> {
    const { stdout } = await promisify(execFile)(process.execPath, [join(sources, `${name}.mjs`), ...args], {
      env: { ...process.env, ...this.env(), ...vars },
    });
    return JSON.parse(stdout) as Record<string, number | object>;
  }

  /** Runs the command line before these libraries, told more by FAKE_CUDA_… variables. */
  run(args: readonly string[], vars: Record<string, string> = {}, found?: readonly FakeLibrary[]): Promise<CliResult> {
    return typert(args, { env: { ...this.env(found), ...vars } });
  }
}
