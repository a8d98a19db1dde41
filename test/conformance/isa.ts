// The instruction sets that the CPU's kernels have ways for: how a compiler is told, and what the processor must say it has (/proc/cpuinfo).
import { readFileSync } from 'node:fs';
import type { CacheDType } from '../../src/targets/plan.ts';
import { attentionCases, CaseBuilder, type Conformance, longCases } from './cases.ts';
import { sets } from './compare.ts';

export interface InstructionSet {
  readonly name: string;
  readonly flags: readonly string[];
  readonly needs: readonly string[];
}

const avx512 = ['avx512f', 'avx512bw', 'avx512dq', 'avx512vl'];
export const x86: readonly InstructionSet[] = [
  { name: 'plain C', flags: ['-march=x86-64'], needs: [] },
  { name: 'AVX2', flags: ['-march=haswell'], needs: ['avx2', 'fma', 'f16c'] },
  { name: 'AVX2 and VNNI', flags: ['-march=haswell', '-mavxvnni'], needs: ['avx2', 'fma', 'f16c', 'avx_vnni'] },
  { name: 'AVX-512', flags: ['-march=skylake-avx512'], needs: avx512 },
  { name: 'AVX-512 and VNNI', flags: ['-march=cascadelake'], needs: [...avx512, 'avx512_vnni'] },
  { name: 'AVX-512, VNNI and BF16', flags: ['-march=cooperlake'], needs: [...avx512, 'avx512_vnni', 'avx512_bf16'] },
  {
    name: 'AMX',
    flags: ['-march=cooperlake', '-mamx-tile', '-mamx-int8', '-mamx-bf16'],
    needs: [...avx512, 'avx512_vnni', 'avx512_bf16', 'amx_tile', 'amx_int8', 'amx_bf16'],
  },
];
export const arm64: readonly InstructionSet[] = [
  { name: 'NEON', flags: ['-march=armv8-a'], needs: ['asimd'] },
  { name: 'NEON and dot products', flags: ['-march=armv8.2-a+dotprod+fp16'], needs: ['asimddp'] },
  { name: 'NEON, i8mm and bf16', flags: ['-march=armv8.6-a'], needs: ['asimddp', 'i8mm', 'bf16'] },
];

/** What this machine's processor says it has. */
export function processorHas(): ReadonlySet<string> {
  try {
    const line = /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? '';
    return new Set(line.trim().split(/\s+/));
  } catch {
    return new Set();
  }
}

/** All cases in one graph, so that they are compiled once; and attention again over blocks that are shorter than a vector, and longer than a tile. */
export function allCases(): readonly {
  readonly name: string;
  readonly made: Conformance;
  readonly tokensPerBlock: number;
}[] {
  const all = new CaseBuilder(17);
  for (const add of Object.values(sets)) add(all);
  attentionCases(all, 16);
  const attention = (tokensPerBlock: number, dtype: CacheDType) => {
    const c = new CaseBuilder(tokensPerBlock);
    attentionCases(c, tokensPerBlock);
    longCases(c, tokensPerBlock);
    return { name: `attention over blocks of ${tokensPerBlock}, ${dtype}`, made: c.finish(dtype), tokensPerBlock };
  };
  return [{ name: 'all ops', made: all.finish(), tokensPerBlock: 16 }, attention(4, 'int8'), attention(64, 'bfloat16')];
}
