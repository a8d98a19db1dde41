// Which targets there are, and the choice that `target: 'auto'` makes.
import { readEnv } from '../base/env.ts';
import { TargetError } from '../base/errors.ts';
import { cpuTarget } from './cpu/target.ts';
import { cudaTarget } from './cuda/target.ts';
import { referenceTarget } from './reference/target.ts';
import type { Target, TargetName, TargetStatus } from './target.ts';

/** Fastest first: 'auto' takes the first that works here. */
export const targets: readonly Target[] = [cudaTarget, cpuTarget, referenceTarget];

/** The target of that name, whether or not it works here: what it knows of plans needs no device. Throws TargetError when there is none. */
export function targetNamed(name: string): Target {
  const found = targets.find((target) => target.name === name);
  if (found !== undefined) return found;
  throw new TargetError('target not available', {
    expected: `auto, ${targets.map((target) => target.name).join(', ')}`,
    got: name,
    remedy: 'typert doctor tells what works on this machine',
  });
}

/** The target of that name, for running engines or for building them; 'auto' is what TYPERT_TARGET says, else the fastest that works here. Throws TargetError when there is none or it does not work here. */
export function findTarget(name: TargetName | 'auto', purpose: 'build' | 'run' = 'run'): Target {
  const serves = (status: TargetStatus): boolean => status.available && (purpose === 'run' || status.builds !== false);
  const asked = name === 'auto' ? (readEnv().target ?? 'auto') : name;
  const found = (asked === 'auto' ? targets.find((target) => serves(target.probe())) : undefined) ?? targetNamed(asked);
  const status = found.probe();
  if (!serves(status))
    throw new TargetError(`target ${found.name} does not work here`, {
      got: status.detail,
      ...(status.remedy === undefined ? {} : { remedy: status.remedy }),
    });
  return found;
}
