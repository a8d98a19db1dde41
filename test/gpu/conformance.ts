// The conformance sets on the GPU in every dtype, against the reference.
// node test/gpu/conformance.ts [--dtype=NAME] [--few] [--tactics] [set…]   (needs a GPU; without vitest, which a bare GPU machine may lack)
// --few: few shapes of every kernel family; --tactics: once for each kind of kernel that could compute a problem.
import { cudaTarget } from '../../src/targets/cuda/target.ts';
import { CaseBuilder } from '../conformance/cases.ts';
import { differences, planOf } from '../conformance/compare.ts';
import { allSets, fewSets, rounds, selected } from './sets.ts';

const status = cudaTarget.probe();
console.log(`cuda: ${status.detail}`);
if (!status.available) process.exit(0);

const options = process.argv.slice(2).filter((arg) => arg.startsWith('--'));
const asked = process.argv.slice(2).filter((arg) => !arg.startsWith('--'));
const only = options.find((arg) => arg.startsWith('--dtype='))?.slice(8);
let failures = 0;
for (const { name, fill, tokensPerBlock, seed } of selected(options.includes('--few') ? fewSets : allSets, asked)) {
  for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
    if (only !== undefined && dtype !== only) continue;
    const start = performance.now();
    try {
      const c = new CaseBuilder(seed, dtype);
      fill(c);
      const made = c.finish();
      const ways = options.includes('--tactics') ? rounds(planOf(made, cudaTarget, tokensPerBlock)) : [undefined];
      for (const [round, adapt] of ways.entries()) {
        const found = await differences(cudaTarget, made, tokensPerBlock, adapt);
        failures += found.length;
        const seconds = ((performance.now() - start) / 1e3).toFixed(1);
        const which = ways.length > 1 ? `, tactics ${round + 1} of ${ways.length}` : '';
        console.log(`${found.length === 0 ? 'agrees' : 'DIFFERS'} ${name}, ${dtype}${which} (${seconds} s)`);
        for (const line of found.slice(0, 12)) console.log(`  ${line}`);
      }
    } catch (error) {
      failures++;
      console.log(`FAILED ${name}, ${dtype}: ${error instanceof Error ? error.message.slice(0, 500) : error}`);
    }
  }
}
console.log(failures === 0 ? 'all sets agree' : `${failures} outputs WRONG`);
process.exitCode = failures === 0 ? 0 : 1;
