// Builds an engine with tuning as `typert build` does and tells what is open afterwards. argv: model, engine folder, timing cache.
import { openResources } from '../../../dist/base/dispose.js';
import { buildEngine } from '../../../dist/compile/build.js';
import { openCheckpoint } from '../../../dist/define/checkpoint/open.js';
import { cudaTarget } from '../../../dist/targets/cuda/target.js';

const [path, engineDir, timingCache] = process.argv.slice(2);
const checkpoint = await openCheckpoint(path);
await buildEngine({ checkpoint, target: cudaTarget, engineDir, build: { timingCache } });
checkpoint[Symbol.dispose]();
console.log(JSON.stringify(openResources()));
