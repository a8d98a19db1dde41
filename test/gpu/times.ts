// Times of launches on the GPU, as the dashboard shows them: a run that takes them computes the same, and every launch has a time.
// node test/gpu/times.ts   (needs a GPU; without vitest, which a bare GPU machine may lack)
import { cudaTarget } from '../../src/targets/cuda/target.ts';
import type { Phase } from '../../src/targets/plan.ts';
import { CaseBuilder } from '../conformance/cases.ts';
import { compute } from '../conformance/compare.ts';
import { allSets } from './sets.ts';

const status = cudaTarget.probe();
console.log(`cuda: ${status.detail}`);
if (!status.available) process.exit(0);

let failures = 0;
for (const { name, fill, tokensPerBlock, seed } of allSets) {
  const c = new CaseBuilder(seed, 'bfloat16');
  fill(c);
  const made = c.finish();
  const times = new Map<Phase, Float64Array>();
  const timed = await compute(cudaTarget, made, tokensPerBlock, times);
  const plain = await compute(cudaTarget, made, tokensPerBlock);
  const differ = [...plain].filter(([output, values]) =>
    values.some((value, i) => !Object.is(value, timed.get(output)![i])),
  );
  const each = times.get('forward')!;
  const without = each.filter((ms) => !(ms > 0 && ms < 1000)).length;
  const total = each.reduce((sum, ms) => sum + ms, 0);
  if (differ.length > 0 || without > 0 || each.length === 0) failures++;
  const found = `${each.length} launches in ${total.toFixed(2)} ms, ${without} without a time, ${differ.length} outputs differ`;
  console.log(`${differ.length + without > 0 ? 'WRONG' : 'ok'} ${name}: ${found}`);
}
console.log(failures === 0 ? 'all launches have times' : `${failures} sets WRONG`);
process.exitCode = failures === 0 ? 0 : 1;
