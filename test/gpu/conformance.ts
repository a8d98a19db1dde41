// The conformance sets on the GPU in every dtype, against the reference.
// node test/gpu/conformance.ts [--dtype=NAME] [set…]   (needs a GPU; without vitest, which a bare GPU machine may lack)
import { cudaTarget } from '../../src/targets/cuda/target.ts';
import { attentionCases, CaseBuilder, ropeAttentionCases } from '../conformance/cases.ts';
import { blocks, differences, fusedSets, sets } from '../conformance/compare.ts';

const status = cudaTarget.probe();
console.log(`cuda: ${status.detail}`);
if (!status.available) process.exit(0);

interface Run {
  readonly name: string;
  readonly tokensPerBlock: number;
  readonly seed: number;
  fill(c: CaseBuilder): void;
}
const runs: readonly Run[] = [
  ...Object.entries(sets).map(([name, fill]) => ({ name, fill, tokensPerBlock: 16, seed: 17 })),
  ...Object.entries(fusedSets).map(([name, { fill }]) => ({ name, fill, tokensPerBlock: 16, seed: 17 })),
  ...blocks.flatMap((size): Run[] => [
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
const asked = process.argv.slice(2).filter((arg) => !arg.startsWith('--'));
const only = process.argv.find((arg) => arg.startsWith('--dtype='))?.slice(8);
let failures = 0;
for (const { name, fill, tokensPerBlock, seed } of runs) {
  if (asked.length > 0 && !asked.some((part) => name.includes(part))) continue;
  for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
    if (only !== undefined && dtype !== only) continue;
    const start = performance.now();
    try {
      const c = new CaseBuilder(seed, dtype);
      fill(c);
      const found = await differences(cudaTarget, c.finish(), tokensPerBlock);
      failures += found.length;
      const seconds = ((performance.now() - start) / 1e3).toFixed(1);
      console.log(`${found.length === 0 ? 'agrees' : 'DIFFERS'} ${name}, ${dtype} (${seconds} s)`);
      for (const line of found.slice(0, 12)) console.log(`  ${line}`);
    } catch (error) {
      failures++;
      console.log(`FAILED ${name}, ${dtype}: ${error instanceof Error ? error.message.slice(0, 500) : error}`);
    }
  }
}
console.log(failures === 0 ? 'all sets agree' : `${failures} outputs WRONG`);
process.exitCode = failures === 0 ? 0 : 1;
