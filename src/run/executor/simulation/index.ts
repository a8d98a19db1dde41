// The simulator: the scheduler under recorded or generated traffic, without a model.
export type { SimulatedResult, SimulatedStep, StepTime } from './replica.ts';
export { PrefixRouter, RoundRobinRouter, type Router } from './router.ts';
export {
  defaultStepTime,
  type Percentiles,
  type SimulationOptions,
  type SimulationResult,
  simulate,
} from './simulate.ts';
export { timelineSvg, timelineText } from './timeline.ts';
export { type PoissonTraffic, poissonTraffic, type SimulatedRequest } from './traffic.ts';
