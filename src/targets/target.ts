// The interface of a target: what the compiler asks it (no device needed) and what the runtime does with a device.
import type { DType, FloatDType } from '../base/dtype.ts';
import type { Dims } from '../base/expr.ts';
import type { Progress } from '../base/progress.ts';
import type { AnyNode } from '../define/graph/graph.ts';
import type { CacheDType, KernelChoice, PackedWeight, Phase, Plan, PlanTensor } from './plan.ts';

/** What a target's kernels can compute besides their op; passes that ask for it run only where it is there. */
export type Epilogue = 'gated-matmul' | 'residual-matmul' | 'norm-matmul' | 'rope-attention';

/** Names of the targets. */
export type TargetName = 'reference' | 'cpu' | 'cuda';

/** Whether a target works here, for `doctor` and for `target: 'auto'`. */
export type TargetStatus =
  /** `builds: false`: it runs engines, but something is missing to build one, which the remedy tells; without it a remedy tells what would make it quicker. */
  | { readonly available: true; readonly detail: string; readonly builds?: false; readonly remedy?: string }
  | { readonly available: false; readonly detail: string; readonly remedy: string };

/** How a target keeps keys and values. */
export interface CacheSupport {
  readonly dtypes: readonly CacheDType[];
  /** What `'auto'` means where `dtype` was asked for, by whether all weights are float32. */
  auto(dtype: FloatDType | 'auto', wide: boolean): CacheDType;
  /** Bytes of a number. */
  bytes(dtype: CacheDType): number;
}

/** Bytes of a number in a target's KV cache. */
export function cacheBytesOf(target: Pick<Target, 'cache' | 'storageBytes'>): (dtype: CacheDType) => number {
  return (dtype) => target.cache?.bytes(dtype) ?? target.storageBytes(dtype);
}

/** A place where plans run. */
export interface Target {
  readonly name: TargetName;
  /** Whether it works on this machine; cheap, may be asked often. */
  probe(): TargetStatus;
  /** What `dtype: 'auto'` means for a checkpoint of this dtype. */
  computeDType(checkpoint: FloatDType): FloatDType;
  /** Bytes an element takes on the device as an activation or in the cache. */
  storageBytes(dtype: DType): number;
  /** The KV cache's dtypes that its kernels have besides that of activations, and how it stores them. Absent: none. */
  readonly cache?: CacheSupport;
  /** Whether weights of a block format run as they are (else they are unpacked at build). */
  keepsBlocks(dtype: DType): boolean;
  /** Set: random weights (loadFormat 'dummy') are made on the device, and engines do not hold them. */
  readonly makesRandomWeights?: true;
  /** Epilogues that its kernels have. */
  readonly epilogues: readonly Epilogue[];
  /** The kernel for a node, or undefined when the target has none (the compiler then reports the op). */
  select(node: AnyNode): KernelChoice | undefined;
  /** What the target adds to a plan when an engine is built here: tactics chosen, kernels compiled, so that opening the engine does neither. */
  prepare?(plan: Plan, options: PrepareOptions): Promise<Prepared>;
  /** Names what `prepare` depends on besides the plan: part of the key under which engines are cached. */
  machine?(): string;
  /** How weights are laid out in the engine for its kernels; without it they are stored as the checkpoint's elements. */
  readonly packing?: WeightPacking;
  /** Opens a device; the caller disposes it. */
  open(options?: DeviceOptions): Promise<Device>;
}

/** How a plan is prepared. */
export interface PrepareOptions {
  /** Which of several devices; 0 by default. */
  readonly device?: number;
  /** Tactics are timed on the device; else heuristics choose. Default true. */
  readonly tune?: boolean;
  /** File of times measured before, which is read and added to. Default: one in the cache folder. */
  readonly timingCache?: string;
  /** Products may go to cuBLASLt where it is found. Default true. */
  readonly cublaslt?: boolean;
  readonly progress: Progress;
}

/** A plan with what its target made for it. */
export interface Prepared {
  readonly plan: Plan;
  /** Bytes that the engine carries besides its weights, by tensor name. */
  readonly tensors: ReadonlyMap<string, Uint8Array>;
}

/** How a target's engines hold their weights. */
export interface WeightPacking {
  /** Names the layout: part of the key under which engines are cached. */
  readonly layout: string;
  /** How each weight is stored, by its index in the plan's tensors. */
  stored(plan: Plan): ReadonlyMap<number, PackedWeight>;
  /** Opens what lays them out; the caller disposes it. */
  open(plan: Plan): Promise<WeightPacker>;
}

/** Lays weights out, piece by piece. */
export interface WeightPacker extends Disposable {
  /** The packed bytes of a weight whose elements come in `pieces`, in order. */
  pack(tensor: PlanTensor, packed: PackedWeight, pieces: Iterable<Uint8Array>): Iterable<Uint8Array>;
}

/** Options of `Target.open`. */
export interface DeviceOptions {
  /** Which of several devices; 0 by default. */
  readonly index?: number;
  /** Threads of a target that computes on the host; by default one a physical core. */
  readonly threads?: number;
}

/** A device's memory, bytes. */
export interface DeviceMemory {
  /** Bytes there are and bytes free, as the device reports them. */
  readonly total: number;
  readonly free: number;
  /** Bytes taken since the device was opened, measured: by everything, the driver's own needs included. Of a host: unknown. */
  readonly used?: number;
  /** The host's memory, which other programs want as well, or the device's own. */
  readonly kind: 'host' | 'device';
}

/** An opened device. */
export interface Device extends AsyncDisposable {
  readonly target: TargetName;
  readonly name: string;
  /** How much memory there is now. */
  memory(): DeviceMemory;
  /** Takes memory, uploads the weights and makes the plan ready to run. */
  load(source: ProgramSource): Promise<Program>;
}

/** The file that holds an engine's weights. */
export interface WeightFile {
  readonly path: string;
  readonly bytes: number;
  /** Where in the file the bytes of a tensor begin. */
  offsetOf(name: string): number;
}

/** What a device needs to load a plan. */
export interface ProgramSource {
  readonly plan: Plan;
  /** Blocks in the KV pool, or how many there are to be given the memory that is left when everything else is there. */
  readonly numBlocks: number | ((memory: DeviceMemory) => number);
  /** Blocks in the pool that content moves to in the host's memory; default 0. */
  readonly numHostBlocks?: number;
  /** Bytes of a weight, or of another tensor of the engine, as stored. */
  readWeight(name: string): Uint8Array;
  /** The file that holds the weights and where in it each begins, for targets that map it. */
  readonly file?: WeightFile;
  /** Called after each weight with its stored bytes. */
  onWeight?(name: string, bytes: number): void;
}

/** Bytes that a loaded program holds on its device. */
export interface ProgramMemory {
  /** Partial sums and counters of kernels. */
  readonly scratch?: number;
  readonly weights: number;
  readonly arena: number;
  readonly kvCache: number;
  readonly inputs: number;
}

/** Arrays that cross between host and device. */
export type HostArray = Int32Array | Uint32Array | Float32Array;

/** KV blocks to be copied in every layer, `from[i]` → `to[i]`, in this order; 'toHost' and 'toDevice': from and to the pool in the host's memory. */
export interface BlockCopies {
  /** Of 'device' copies all targets differ, and none is a source. */
  readonly kind: 'device' | 'toHost' | 'toDevice';
  readonly from: Int32Array;
  readonly to: Int32Array;
}

/** The size of the KV pool that a source asks for. */
export function poolBlocks({ numBlocks }: ProgramSource, memory: () => DeviceMemory): number {
  return typeof numBlocks === 'number' ? numBlocks : numBlocks(memory());
}

/** A plan on a device, ready to run steps. Calls are made one after the other. */
export interface Program extends AsyncDisposable {
  readonly memory: ProgramMemory;
  /** Blocks in the KV pool. */
  readonly numBlocks: number;
  /** Set: work is queued, calls return at once, and an id −1 − row among the input `tokens` names what the step before samples in that row. */
  readonly queues?: true;
  /** Rows that a step of one token a request is best filled up to; the block after the pool's last takes what rows that stand for nobody write. Absent: none. */
  readonly fillUp?: (rows: number) => number;
  /** Sets a step input, from its element `at` (default 0) on: the first `count` elements of `data`. */
  write(input: string, data: HostArray, count: number, at?: number): void;
  /** Runs a phase with the symbols at these values. To `times`, one entry a plan step of the phase, the milliseconds that each took are added. */
  run(phase: Phase, dims: Dims, times?: Float64Array): Promise<void>;
  /** Runs both phases, where that is quicker than one after the other. */
  runStep?(dims: Dims): Promise<void>;
  /** Copies the first `into.length` elements of an output to the host. */
  read(output: string, into: HostArray): Promise<void>;
  /** Overwrites the first elements of an output (logits changed by the host). */
  overwrite(output: string, data: Float32Array): Promise<void>;
  /** An output where it is, to be changed in place between two runs; absent: the host cannot reach it. */
  view?(output: string): Float32Array;
  /** Copies KV blocks; steps that are run later see the copies. */
  copyBlocks(copies: BlockCopies): Promise<void>;
}
