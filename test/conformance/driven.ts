// The CPU target with its kernels in a program of their own (driver.c): compiled by any compiler for any instruction set, with any flags, and run
// directly or by an emulator. Uses nothing that must be installed, so that it also works on a bare machine (isa.mjs).
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { KernelHost, StepCall } from '../../src/targets/cpu/host.ts';
import { cpuKernels, weightFormats } from '../../src/targets/cpu/kernels.ts';
import { CpuProgram } from '../../src/targets/cpu/program.ts';
import { makeStub } from '../../src/targets/cpu/stub.ts';
import { cpuFlags } from '../../src/targets/jit/cc-compiler.ts';
import type { Plan } from '../../src/targets/plan.ts';
import type { Target } from '../../src/targets/target.ts';
import type { Conformance } from './cases.ts';
import { planOf } from './compare.ts';

export interface Driven {
  readonly compiler: string;
  /** What the instruction set is chosen by, and whatever else. */
  readonly flags: readonly string[];
  /** What the program is run by. */
  readonly runner?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly threads?: number;
}

const kernels = fileURLToPath(new URL('../../src/kernels', import.meta.url));
const driver = fileURLToPath(new URL('driver.c', import.meta.url));

/** Throws with the compiler's words when it does not compile. */
function compileDriver(folder: string, stub: string, { compiler, flags }: Driven): string {
  const source = join(folder, 'stub.c');
  const program = join(folder, 'driver');
  writeFileSync(source, stub);
  const common = cpuFlags.filter((flag) => flag !== '-fPIC');
  const args = [...common, ...flags, `-DSTUB="${source}"`, '-I', kernels, driver, '-o', program, '-lm'];
  execFileSync(compiler, args, { stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8' });
  return program;
}

/** Compiles all kernels of a graph; throws with the compiler's words. */
export function compileStubFor(made: Conformance, tokensPerBlock: number, how: Driven): void {
  const folder = mkdtempSync(join(tmpdir(), 'typert-driven-'));
  try {
    compileDriver(folder, makeStub(planOf(made, drivenTarget(how), tokensPerBlock)).text, how);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Region {
  readonly address: bigint;
  readonly data: Buffer;
  readonly flags: number;
}

/** Contents go there or not; come back or not. */
const flagsOf = (what: string): number => {
  if (what.includes('KV cache') || what === 'scratch') return 0;
  return what === 'activations' ? 3 : 1;
};

function openHost(plan: Plan, how: Driven): KernelHost {
  const folder = mkdtempSync(join(tmpdir(), 'typert-driven-'));
  const stub = makeStub(plan);
  const program = compileDriver(folder, stub.text, how);
  const [from, to] = [join(folder, 'in'), join(folder, 'out')];
  const { runner = [], threads = 2 } = how;
  const run = (...args: string[]): Buffer => {
    const [command, ...rest] = [...runner, program, ...args];
    const env = { ...process.env, ...how.env };
    execFileSync(command!, rest, { env, stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8', timeout: 300_000 });
    return readFileSync(to);
  };
  const regions: Region[] = [];
  const step = ({ launches, count, values, scratch }: StepCall): void => {
    const head = [BigInt(regions.length), launches, BigInt(count), values, scratch];
    for (const { address, data, flags } of regions) head.push(address, BigInt(data.length), BigInt(flags));
    const header = Buffer.from(BigUint64Array.from(head).buffer);
    writeFileSync(from, Buffer.concat([header, ...regions.filter(({ flags }) => flags & 1).map(({ data }) => data)]));
    let back = run('step', from, to, String(threads));
    for (const { data, flags } of regions) {
      if ((flags & 2) === 0) continue;
      data.set(back.subarray(0, data.length));
      back = back.subarray(data.length);
    }
  };
  return {
    threads,
    allocate(what, bytes) {
      // Far apart, so that an address tells its region.
      const address = BigInt(regions.length + 1) << 40n;
      regions.push({ address, data: Buffer.alloc(Math.max(64, Math.ceil(bytes / 64) * 64)), flags: flagsOf(what) });
      return address;
    },
    bytesAt(address, bytes) {
      const region = regions[Number(address >> 40n) - 1]!;
      const at = Number(address - region.address);
      return region.data.subarray(at, at + bytes);
    },
    map: () => undefined,
    pack: (dtype, raw, rows, columns) => {
      writeFileSync(from, raw);
      const { id, share = 1 } = weightFormats[dtype]!;
      return run('pack', String(id), String(share), String(rows), String(columns), from, to);
    },
    kernelOf: (each) => stub.kernelOf.get(each)!,
    configOf: () => [],
    copyBlocks: () => {
      throw new Error('blocks are not copied here');
    },
    step,
    stepAside: async (call) => step(call),
    [Symbol.asyncDispose]: async () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** A target whose programs run through the driver. */
export function drivenTarget(how: Driven): Target {
  return {
    name: 'cpu',
    probe: () => ({ available: true, detail: [how.compiler, ...how.flags].join(' ') }),
    computeDType: () => 'float32',
    storageBytes: () => 4,
    keepsBlocks: (dtype) => weightFormats[dtype] !== undefined,
    epilogues: [],
    select: (node) => {
      if (!Object.hasOwn(cpuKernels, node.op)) return undefined;
      const kernel = cpuKernels[node.op as keyof typeof cpuKernels];
      return { name: `cpu/${node.op}`, config: kernel.config?.(node as never) ?? {} };
    },
    open: async () => ({
      target: 'cpu',
      name: 'driven',
      memory: () => ({ kind: 'host', total: 0, free: 0 }),
      load: async (source) => new CpuProgram(source, openHost(source.plan, how)),
      [Symbol.asyncDispose]: async () => {},
    }),
  };
}
