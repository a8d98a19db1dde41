// Which config of a kernel computes a problem: chosen once for ranges of sizes, kept in the plan, looked up at run. A size is what changes from
// step to step: rows of a product, requests of a decode step, tokens of a prompt. Plain data, no device.
import {
  type AttentionConfig,
  type AttentionProblem,
  attentionKernel,
  decodeCandidates,
  prefillCandidates,
} from '../../kernels/attention/cuda.ts';
import type { CudaArch, CudaKernel } from '../../kernels/cuda-kernel.ts';
import type { LtConfig } from '../../kernels/matmul/cublaslt.ts';
import { type MatmulConfig, type MatmulProblem, matmulKernel } from '../../kernels/matmul/cuda.ts';
import { matmulCandidates } from '../../kernels/matmul/cuda-candidates.ts';
import type { Plan, Tactic } from '../plan.ts';

/** Something that several configs can compute. */
export type TacticProblem =
  | { readonly op: 'matmul'; readonly problem: MatmulProblem }
  | { readonly op: 'decode' | 'prefill'; readonly problem: AttentionProblem };

/** A config of a kernel of ours. */
export type OwnConfig = MatmulConfig | AttentionConfig;
export type TacticConfig = OwnConfig | LtConfig;

/** The choices that launches ask for. */
export interface Tactics {
  matmul(problem: MatmulProblem): MatmulConfig | LtConfig;
  decode(problem: AttentionProblem): AttentionConfig;
  prefill(problem: AttentionProblem): AttentionConfig;
}

/** The field of a problem that is its size. */
const sizeFields = { matmul: 'm', decode: 'requests', prefill: 'tokens' } as const;
/** Fields that change no choice, besides the size: what a step has by chance, and how many blocks the pool got. */
const otherFields = new Set(['requests', 'tokens', 'numBlocks']);

/** The sizes that tactics are chosen for, up to the first that holds `limit`; between powers of two one more from 16 on. */
export function tacticSizes(limit: number): number[] {
  const sizes: number[] = [];
  for (let power = 1; ; power *= 2) {
    for (const size of power >= 16 ? [power, power * 1.5] : [power]) {
      sizes.push(size);
      if (size >= limit) return sizes;
    }
  }
}

/** The size that `size` is treated as. */
export function tacticSize(size: number): number {
  return tacticSizes(size).at(-1)!;
}

export function problemSize({ op, problem }: TacticProblem): number {
  return (problem as unknown as Record<string, number>)[sizeFields[op]]!;
}

/** The problem at another size; requests and tokens that make sense beside it. */
export function withSize(of: TacticProblem, size: number): TacticProblem {
  switch (of.op) {
    case 'matmul':
      return { op: 'matmul', problem: { ...of.problem, m: size } };
    case 'decode':
      return { op: 'decode', problem: { ...of.problem, requests: size, tokens: size } };
    case 'prefill':
      return { op: 'prefill', problem: { ...of.problem, requests: 1, tokens: size } };
    default:
      return of satisfies never;
  }
}

/** All that shapes the problem but its size, as text: 'matmul bfloat16 n=6144 k=4096 ldx=4096 ldy=6144'. */
export function problemKey({ op, problem }: TacticProblem): string {
  const parts: string[] = [op, problem.dtype];
  for (const [name, value] of Object.entries(problem)) {
    if (name === 'dtype' || name === sizeFields[op] || otherFields.has(name)) continue;
    if (value === undefined || value === false || value === 'none') continue;
    parts.push(value === true ? name : `${name}=${typeof value === 'object' ? JSON.stringify(value) : value}`);
  }
  return parts.join(' ');
}

/** Configs for the problem, the heuristic's choice first. */
export function candidates(of: TacticProblem, arch: CudaArch): readonly OwnConfig[] {
  switch (of.op) {
    case 'matmul':
      return matmulCandidates(of.problem, arch);
    case 'decode':
      return decodeCandidates(of.problem, arch);
    case 'prefill':
      return prefillCandidates(of.problem, arch);
    default:
      return of satisfies never;
  }
}

/** The kernel that a config of a problem launches. */
export function tacticKernel(of: TacticProblem, config: OwnConfig): CudaKernel {
  return of.op === 'matmul'
    ? matmulKernel(of.problem, config as MatmulConfig)
    : attentionKernel(of.problem, config as AttentionConfig);
}

/** Looks choices up in a table; what the table lacks is the heuristic's choice. */
export class TacticTable implements Tactics {
  readonly #arch: CudaArch;
  readonly #problems: Readonly<Record<string, readonly Tactic[]>>;
  readonly #known = new Map<string, TacticConfig>();
  readonly #cublaslt: boolean;
  readonly #ask: (problem: TacticProblem) => void;

  /** Without `cublaslt` own kernels take the place of its tactics. `ask` hears of each problem, at the size it is treated as, once. */
  constructor(
    arch: CudaArch,
    problems: Readonly<Record<string, readonly Tactic[]>> = {},
    { cublaslt = false, ask = () => {} }: { cublaslt?: boolean; ask?: (problem: TacticProblem) => void } = {},
  ) {
    this.#arch = arch;
    this.#problems = problems;
    this.#cublaslt = cublaslt;
    this.#ask = ask;
  }

  matmul(problem: MatmulProblem): MatmulConfig | LtConfig {
    const config = this.#choose({ op: 'matmul', problem }) as MatmulConfig | LtConfig;
    return config.kind === 'cublaslt' && !this.#cublaslt ? config.own : config;
  }

  decode(problem: AttentionProblem): AttentionConfig {
    return this.#choose({ op: 'decode', problem }) as AttentionConfig;
  }

  prefill(problem: AttentionProblem): AttentionConfig {
    return this.#choose({ op: 'prefill', problem }) as AttentionConfig;
  }

  #choose(problem: TacticProblem): TacticConfig {
    const size = tacticSize(problemSize(problem));
    const key = problemKey(problem);
    const place = `${key} ${size}`;
    const known = this.#known.get(place);
    if (known !== undefined) return known;
    const sized = withSize(problem, size);
    this.#ask(sized);
    const tactic = this.#problems[key]?.find(({ upTo }) => upTo >= size);
    const config = (tactic?.config as TacticConfig | undefined) ?? candidates(sized, this.#arch)[0]!;
    this.#known.set(place, config);
    return config;
  }
}

/** Names a device as tactics do: what is chosen on one suits only its like. */
export function tacticDevice(info: CudaArch & { readonly name: string }): string {
  return `${info.name}, sm_${info.sm}, ${info.multiprocessors} multiprocessors`;
}

/** The plan's tactics, where they were chosen for a device like this one; else the heuristics'. With `cublaslt` those of cuBLASLt too. */
export function planTactics(plan: Plan, info: CudaArch & { readonly name: string }, cublaslt = false): Tactics {
  const { tactics } = plan;
  return new TacticTable(info, tactics?.device === tacticDevice(info) ? tactics.problems : {}, { cublaslt });
}
