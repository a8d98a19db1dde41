// Which targets there are, and the choice that `target: 'auto'` makes.
import { TargetError } from '../base/errors.ts';
import { referenceTarget } from './reference/target.ts';
import type { Target, TargetName } from './target.ts';

/** Fastest first: 'auto' takes the first that works here. */
export const targets: readonly Target[] = [referenceTarget];

export function findTarget(name: TargetName | 'auto'): Target {
  const found =
    name === 'auto'
      ? targets.find((target) => target.probe().available)
      : targets.find((target) => target.name === name);
  if (found === undefined) {
    throw new TargetError('target not available', {
      expected: `auto, ${targets.map((target) => target.name).join(', ')}`,
      got: name,
      remedy: 'typert doctor tells what works on this machine',
    });
  }
  const status = found.probe();
  if (!status.available)
    throw new TargetError(`target ${found.name} does not work here`, { got: status.detail, remedy: status.remedy });
  return found;
}
