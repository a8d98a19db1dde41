// What the GPU's conformance runs compute: the sets of test/conformance, a few shapes of each kernel family for slow tools, and one round of a set for each
// kind of kernel that could compute its products and its attention, where a plain run has the heuristic's choice alone.
import type { CudaArch } from '../../src/kernels/cuda-kernel.ts';
import { CudaDevice } from '../../src/targets/cuda/device.ts';
import { tabulate } from '../../src/targets/cuda/prepare.ts';
import { planProblems } from '../../src/targets/cuda/survey.ts';
import { candidates, type OwnConfig, type TacticProblem, tacticDevice } from '../../src/targets/cuda/tactics.ts';
import type { Plan } from '../../src/targets/plan.ts';
import {
  attentionCases,
  type CaseBuilder,
  fusedMatmulCases,
  longCases,
  matmulCases,
  moeCases,
  pointCases,
  ropeAttentionCases,
  sampleCases,
} from '../conformance/cases.ts';
import { blocks, fusedSets, sets } from '../conformance/compare.ts';

export interface GpuSet {
  readonly name: string;
  readonly tokensPerBlock: number;
  readonly seed: number;
  fill(c: CaseBuilder): void;
}

const over16 = (name: string, fill: (c: CaseBuilder) => void): GpuSet => ({ name, fill, tokensPerBlock: 16, seed: 17 });

export const allSets: readonly GpuSet[] = [
  ...Object.entries(sets).map(([name, fill]) => over16(name, fill)),
  ...Object.entries(fusedSets).map(([name, { fill }]) => over16(name, fill)),
  over16('long contexts', longCases),
  ...blocks.flatMap((size): GpuSet[] => [
    {
      name: `attention over blocks of ${size}`,
      fill: (c) => attentionCases(c, size),
      tokensPerBlock: size,
      seed: size,
    },
    {
      name: `rotation over blocks of ${size}`,
      fill: (c) => ropeAttentionCases(c, size),
      tokensPerBlock: size,
      seed: size,
    },
  ]),
];

/** Columns and k: tiles cut off at both ends; and so many weight rows that persistent blocks take several tiles of them. */
const fewRows = [
  [264, 520],
  [528, 1152],
] as const;
const manyRows = [...fewRows, [2144, 320]] as const;

/** Every kernel family in few shapes. */
export const fewSets: readonly GpuSet[] = [
  over16('elements', pointCases),
  over16('plain products', (c) => matmulCases(c, [1, 27])),
  over16('fused products of few rows', (c) => fusedMatmulCases(c, [3], manyRows)),
  over16('fused products of 13 rows', (c) => fusedMatmulCases(c, [13], manyRows)),
  over16('fused products of 150 rows', (c) => fusedMatmulCases(c, [150], fewRows)),
  over16('experts', moeCases),
  over16('sampling', sampleCases),
  over16('attention', (c) => attentionCases(c, 16)),
  over16('rotation', (c) => ropeAttentionCases(c, 16)),
  over16('long contexts', longCases),
];

/** The sets of these names, or whose names hold one of these texts; all where nothing is asked for. */
export function selected(sets: readonly GpuSet[], asked: readonly string[]): readonly GpuSet[] {
  const named = sets.filter(({ name }) => asked.includes(name));
  if (named.length > 0) return named;
  return sets.filter(({ name }) => asked.length === 0 || asked.some((part) => name.includes(part)));
}

/** What makes a config a kernel of its own kind, rather than one of another size. */
function kindOf(config: OwnConfig): string {
  const { kind } = config;
  const split = 'splits' in config && config.splits > 1;
  const wide = ('warpgroups' in config && config.warpgroups > 1) || ('cluster' in config && config.cluster > 1);
  const rows = 'rowTiles' in config && kind === 'stream' ? config.rowTiles : '';
  return `${kind} ${split} ${wide} ${rows}`;
}

function kindsOf(problem: TacticProblem, arch: CudaArch): OwnConfig[] {
  const kinds = new Map<string, OwnConfig>();
  for (const config of candidates(problem, arch)) if (!kinds.has(kindOf(config))) kinds.set(kindOf(config), config);
  return [...kinds.values()];
}

/** Ways to choose tactics for a plan that together use every kind of kernel for each of its problems. The first is the heuristic's. */
export function rounds(plan: Plan): ((plan: Plan) => Plan)[] {
  using device = new CudaDevice();
  const { info } = device;
  const problems = planProblems(plan, info);
  const most = Math.max(1, ...problems.map((problem) => kindsOf(problem, info).length));
  return Array.from({ length: most }, (_, round) => {
    const choose = (problem: TacticProblem): OwnConfig => {
      const kinds = kindsOf(problem, info);
      return kinds[round % kinds.length]!;
    };
    const tactics = { device: tacticDevice(info), problems: tabulate(problems, choose) };
    return (made) => ({ ...made, tactics });
  });
}
