// Loads an engine's weights as the CUDA target does and compares the device's memory with the file. argv: engine folder.
import { openResources } from '../../../dist/base/dispose.js';
import { openEngine } from '../../../dist/compile/engine/read.js';
import { CudaDevice } from '../../../dist/targets/cuda/device.js';
import { DeviceWeights } from '../../../dist/targets/cuda/weights.js';

const engine = openEngine(process.argv[2]);
const device = new CudaDevice();
const stream = device.createStream();
const reported = [];
const source = {
  plan: engine.plan,
  numBlocks: 1,
  file: engine.file,
  readWeight: (name) => engine.readWeight(name),
  onWeight: (name) => reported.push(name),
};
const weights = await DeviceWeights.load(device, stream, source);
let [equal, different] = [0, 0];
for (const [index, tensor] of engine.plan.tensors.entries()) {
  if (tensor.storage.kind !== 'weight') continue;
  const stored = engine.readWeight(tensor.name);
  const there = new Uint8Array(stored.length);
  device.download(weights.address(index), there);
  if (Buffer.compare(stored, there) === 0) equal++;
  else different++;
}
weights[Symbol.dispose]();
stream[Symbol.dispose]();
device[Symbol.dispose]();
engine[Symbol.dispose]();
console.log(JSON.stringify({ equal, different, reported: new Set(reported).size, open: openResources() }));
