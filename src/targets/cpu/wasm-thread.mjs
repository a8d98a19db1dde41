// A thread of the pool of WebAssembly kernels. Plain JavaScript, so that it starts as well from the sources as from the build.
import { parentPort, workerData } from 'node:worker_threads';

const { module, memory, pool, index, stack } = workerData;
const { exports } = new WebAssembly.Instance(module, { env: { memory, now: () => performance.now() } });
exports.__stack_pointer.value = stack;
parentPort.postMessage('ready');
try {
  exports.typert_thread(pool, index);
} catch (error) {
  // The others wait for this thread at the next barrier.
  exports.typert_pool_stop(pool);
  throw error;
}
