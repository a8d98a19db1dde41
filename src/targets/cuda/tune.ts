// Chooses tactics by timing: for each problem and size the likeliest candidates, those of unknown time alone. Sizes between powers of two try what
// was best on both sides. Kernels are compiled by other processes while the device times the ones before.
import { debug } from '../../base/debug.ts';
import type { FloatDType } from '../../base/dtype.ts';
import { TypertError } from '../../base/errors.ts';
import type { Progress } from '../../base/progress.ts';
import type { CudaArch } from '../../kernels/cuda-kernel.ts';
import { type LtAlgorithm, ltSteps } from '../../kernels/matmul/cublaslt.ts';
import type { MatmulConfig } from '../../kernels/matmul/cuda.ts';
import type { Timing, TimingCache } from '../timing-cache.ts';
import { type KernelCompiler, sourceHash } from './binaries.ts';
import type { CudaDevice } from './device.ts';
import type { LtProducts } from './products.ts';
import { type Candidate, TacticTimer } from './tactic-timer.ts';
import {
  candidates,
  type OwnConfig,
  problemKey,
  problemSize,
  type TacticConfig,
  type TacticProblem,
  tacticKernel,
  tacticSizes,
} from './tactics.ts';

export interface TuneTask {
  readonly device: CudaDevice;
  readonly compiler: KernelCompiler;
  readonly dtype: FloatDType;
  readonly problems: readonly TacticProblem[];
  readonly cache: TimingCache;
  /** cuBLASLt, where it may compute products. */
  readonly products: LtProducts | undefined;
  readonly progress: Progress;
  /** After so many milliseconds heuristics choose what is not timed yet. */
  readonly budget: number;
}

/** Candidates a problem is timed with. */
const mostCandidates = 8;
/** A choice must win by this share over the heuristic's. */
const margin = 0.99;

interface Place {
  readonly problem: TacticProblem;
  readonly key: string;
  readonly size: number;
}

/** The heuristic's first choices, and the first of each kind of kernel. */
export function shortlist(problem: TacticProblem, arch: CudaArch, count = mostCandidates): readonly OwnConfig[] {
  const all = candidates(problem, arch);
  const kinds = new Set<string>();
  return all.filter((config, i) => {
    const first = !kinds.has(config.kind);
    kinds.add(config.kind);
    return i < count || first;
  });
}

/** Rows from which cuBLASLt is worth a try, and algorithms of it that are tried. */
const ltRows = 16;
const ltAlgorithms = 3;

/** What cuBLASLt would do. */
function ltCandidates(problem: TacticProblem, arch: CudaArch, products: LtProducts | undefined): LtAlgorithm[] {
  if (products === undefined || problem.op !== 'matmul' || problem.problem.m < ltRows) return [];
  const steps = ltSteps(problem.problem, arch);
  if (steps === undefined) return [];
  const { version } = products;
  return products
    .algorithms(steps.product, ltAlgorithms)
    .map((algorithm) => ({ kind: 'cublaslt', version, algorithm }));
}

const same = (a: Timing['config'], b: Timing['config']): boolean => JSON.stringify(a) === JSON.stringify(b);

/** Identifies the code of a candidate in the timing cache. */
function source(problem: TacticProblem, config: Candidate): string {
  if (config.kind === 'cublaslt') return `cublaslt ${config.version}`;
  return sourceHash(tacticKernel(problem, config)).slice(0, 12);
}

/** Times what is not in the cache, adds it there, and returns the choice for each problem. */
export async function tune(task: TuneTask): Promise<(problem: TacticProblem) => TacticConfig> {
  const { device, problems, cache, products } = task;
  const places = problems.map((problem) => ({ problem, key: problemKey(problem), size: problemSize(problem) }));
  const open = places.filter(({ problem }) => candidates(problem, device.info).length > 1);
  const between = ({ size }: Place): boolean => !Number.isInteger(Math.log2(size));
  using session = new TuningSession(task);
  await session.time(
    open.filter((place) => !between(place)),
    ({ problem }) => [...shortlist(problem, device.info), ...ltCandidates(problem, device.info, products)],
  );
  await session.time(open.filter(between), (place) => [
    ...neighbours(place, device.info, cache),
    ...ltCandidates(place.problem, device.info, products),
  ]);
  cache.save();
  return (problem) => choice(problem, device.info, cache, products?.version);
}

/** The fastest known candidate whose code is still the same; the heuristic's where none is clearly faster. */
export function choice(
  problem: TacticProblem,
  arch: CudaArch,
  cache: TimingCache,
  cublaslt: number | undefined,
): TacticConfig {
  const all = candidates(problem, arch);
  const [key, size] = [problemKey(problem), problemSize(problem)];
  let best = all[0]!;
  let least = cache.find(key, size, best, source(problem, best)) ?? Number.POSITIVE_INFINITY;
  least *= margin;
  for (const config of all) {
    const us = cache.find(key, size, config, source(problem, config));
    if (us === undefined || us >= least) continue;
    [best, least] = [config, us];
  }
  const library = cache
    .at(key, size)
    .find(({ config, source: of }) => config.kind === 'cublaslt' && of === `cublaslt ${cublaslt}`);
  // An own kernel needs no library and begins before the one before it ends: it must lose by a margin.
  if (library === undefined || library.us >= least * margin) return best;
  return { ...(library.config as LtAlgorithm), own: best as MatmulConfig };
}

/** What won at the sizes on both sides, and the heuristic's choices. */
function neighbours({ problem, key, size }: Place, arch: CudaArch, cache: TimingCache): readonly OwnConfig[] {
  const all = candidates(problem, arch);
  const sizes = tacticSizes(2 * size).filter((n) => Number.isInteger(Math.log2(n)));
  const around = [sizes.findLast((n) => n < size), sizes.find((n) => n > size)];
  const winners = around.flatMap((n) => (n === undefined ? [] : cache.at(key, n).slice(0, 2)));
  const tried = all.filter((config, i) => i < 2 || winners.some((won) => same(won.config, config)));
  return tried.length > 2 ? tried : shortlist(problem, arch, 4);
}

class TuningSession implements Disposable {
  readonly #task: TuneTask;
  readonly #deadline: number;
  #timer: TacticTimer | undefined;
  #exhausted = false;

  constructor(task: TuneTask) {
    this.#task = task;
    this.#deadline = performance.now() + task.budget;
  }

  [Symbol.dispose](): void {
    this.#timer?.[Symbol.dispose]();
  }

  /** Times the candidates of these places that the cache does not know. */
  async time(places: readonly Place[], candidatesOf: (place: Place) => readonly Candidate[]): Promise<void> {
    const { cache, compiler, device, dtype, products, progress } = this.#task;
    const jobs = places.flatMap((place) => {
      const configs = candidatesOf(place);
      const unknown = configs.filter(
        (config) => cache.find(place.key, place.size, config, source(place.problem, config)) === undefined,
      );
      return unknown.length === 0 ? [] : [{ place, configs: unknown }];
    });
    const total = jobs.reduce((sum, { configs }) => sum + configs.length, 0);
    if (total === 0 || this.#exhausted) return;
    const kernels = new Map(
      jobs.flatMap(({ place, configs }) =>
        configs.flatMap((config) => {
          if (config.kind === 'cublaslt') return [];
          const kernel = tacticKernel(place.problem, config);
          return [[kernel.name, kernel] as const];
        }),
      ),
    );
    // All at once: the compiler takes as many at a time as it can. Whoever needs a kernel awaits it.
    for (const kernel of kernels.values()) compiler.compile(kernel).catch(() => {});
    this.#timer ??= new TacticTimer(device, compiler, dtype, products);
    let done = 0;
    for (const { place, configs } of jobs) {
      let best = Number.POSITIVE_INFINITY;
      for (const config of configs) {
        if (performance.now() > this.#deadline) {
          this.#exhausted = true;
          debug(1, () => `tuning ended by its time limit, ${total - done} of ${total} candidates left`);
          return;
        }
        const us = await this.#timed(place, config, best);
        if (us !== undefined) {
          cache.add(place.key, place.size, {
            us: Number(us.toPrecision(4)),
            config,
            source: source(place.problem, config),
          });
          best = Math.min(best, us);
        }
        progress({ task: 'time tactics', done: ++done, total, unit: 'steps', item: `${place.key} ${place.size}` });
        // Compilers wait for this thread to hand out their next kernel.
        await new Promise((resolve) => setImmediate(resolve));
      }
      debug(3, () => `${place.key} ${place.size}: ${best.toFixed(2)} us`);
    }
  }

  /** A candidate that does not compile or launch is no candidate; a device that is lost is an error. */
  async #timed({ problem }: Place, config: Candidate, best: number): Promise<number | undefined> {
    try {
      return await this.#timer!.time(problem, config, best);
    } catch (error) {
      if (!(error instanceof TypertError)) throw error;
      this.#task.device.synchronize();
      debug(1, () => `left out ${JSON.stringify(config)}: ${error.message}`);
      return undefined;
    }
  }
}
