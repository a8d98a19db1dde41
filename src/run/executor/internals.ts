// The executor's parts by themselves, for benches and simulations. Not exported by the package.

export { GuideMaker } from '../decode/guided.ts';
export { Engine } from './engine.ts';
export { checkRequest } from './request.ts';
export { Scheduler } from './scheduler.ts';
