// The executor's parts by themselves, for benches and simulations. Not exported by the package.
export { Engine } from './engine.ts';
export { Scheduler } from './scheduler.ts';
