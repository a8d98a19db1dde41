// The plan as a graph: launches with who made what they read. The engine holds launches and memory only; since every tensor is written once, the edges follow.
import type { EngineDescription, ProfileAnswer } from '../../src/serve/dashboard/api.ts';

type Plan = EngineDescription['plan'];
type Tensor = Plan['tensors'][number];
export type Kind = 'generation' | 'context';

export interface Argument {
  readonly name: string;
  readonly tensor: Tensor;
  /** The launch that wrote it; undefined for weights and inputs of the step. */
  readonly from: Launch | undefined;
}

export interface Launch {
  readonly phase: 'forward' | 'sample';
  /** Number in its phase. */
  readonly index: number;
  readonly op: string;
  readonly kernel: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly attrs: Readonly<Record<string, unknown>>;
  readonly scope: string;
  /** The scope within its group. */
  readonly name: string;
  readonly inputs: readonly Argument[];
  readonly outputs: readonly Argument[];
  /** The launch that wrote this layer's part of the KV cache, for those that read it. */
  readonly cacheFrom: Launch | undefined;
}

/** A stretch of the plan: a layer, or what is before or after the layers. */
export interface Group {
  readonly name: string;
  readonly launches: readonly Launch[];
}

/** `transformer.layers.3.mlp.fc` → layer 3 and `mlp.fc`. */
function layerOf(scope: string): { readonly layer: string; readonly rest: string } | undefined {
  const match = /^(?:.*?\.)?(\d+)\.(.+)$/.exec(scope);
  return match === null ? undefined : { layer: match[1]!, rest: match[2]! };
}

/** Who wrote a view: the newest launch before whose output spans it, row by row. */
function writerOfView(
  view: Tensor,
  written: ReadonlyMap<number, Launch>,
  tensors: readonly Tensor[],
): Launch | undefined {
  if (view.storage.kind !== 'arena') return undefined;
  let found: Launch | undefined;
  for (const [index, launch] of written) {
    const { storage, shape, stride } = tensors[index]!;
    if (storage.kind !== 'arena' || stride !== undefined || shape.at(-1) !== view.stride) continue;
    const past = view.storage.offset - storage.offset;
    if (past >= 0 && past < (view.stride ?? 0) * 4) found = launch;
  }
  return found;
}

/** The launches of a plan in order, in groups. */
export function readPlan(plan: Plan): readonly Group[] {
  const groups: { name: string; launches: Launch[] }[] = [];
  const written = new Map<number, Launch>();
  const caches = new Map<unknown, Launch>();
  for (const phase of ['forward', 'sample'] as const) {
    plan.phases[phase].forEach((step, index) => {
      const inputs: Argument[] = [];
      const outputs: Argument[] = [];
      for (const [name, at] of Object.entries(step.args)) {
        const tensor = plan.tensors[at]!;
        const isView = tensor.stride !== undefined;
        const isNew = tensor.storage.kind === 'arena' && !isView && !written.has(at);
        const from = isView ? writerOfView(tensor, written, plan.tensors) : written.get(at);
        (isNew ? outputs : inputs).push({ name, tensor, from });
      }
      const attrs = step.attrs as Readonly<Record<string, unknown>>;
      const placed = phase === 'sample' ? undefined : layerOf(step.scope);
      const launch: Launch = {
        phase,
        index,
        op: step.op,
        kernel: step.kernel.name.replace(/^\w+\//, ''),
        config: step.kernel.config,
        attrs,
        scope: step.scope,
        name: placed?.rest ?? step.scope.replace(/^transformer\./, ''),
        inputs,
        outputs,
        cacheFrom: step.op === 'ropeCache' ? undefined : caches.get(attrs.layer),
      };
      for (const [name, at] of Object.entries(step.args))
        if (outputs.some((output) => output.name === name)) written.set(at, launch);
      if (step.op === 'ropeCache') caches.set(attrs.layer, launch);
      const name =
        placed !== undefined
          ? `Layer ${placed.layer}`
          : phase === 'sample'
            ? 'Sampling'
            : groups.length === 0 || groups.at(-1)!.name === 'Embedding'
              ? 'Embedding'
              : 'Head';
      if (groups.at(-1)?.name === name) groups.at(-1)!.launches.push(launch);
      else groups.push({ name, launches: [launch] });
    });
  }
  return groups;
}

/** Milliseconds a step that launches take, from what was timed; undefined when no such step was. */
export class Times {
  readonly #profile: ProfileAnswer;

  constructor(profile: ProfileAnswer) {
    this.#profile = profile;
  }

  get load(): ProfileAnswer['load'] {
    return this.#profile.load;
  }

  of(kind: Kind): ProfileAnswer[Kind] | undefined {
    const steps = this.#profile[kind];
    return steps.numSteps === 0 ? undefined : steps;
  }

  launch(kind: Kind, { phase, index }: Launch): number {
    const steps = this.#profile[kind];
    return steps.numSteps === 0 ? 0 : (steps[phase][index] ?? 0) / steps.numSteps;
  }

  sum(kind: Kind, launches: readonly Launch[]): number {
    return launches.reduce((sum, launch) => sum + this.launch(kind, launch), 0);
  }
}
