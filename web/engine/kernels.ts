// Where a step's time goes, by kernel: the most costly first.
import { h } from '../dom.ts';
import { count, percent, plural, time } from '../format.ts';
import type { Group, Kind, Launch, Times } from './plan.ts';

interface Row {
  readonly name: string;
  readonly launches: Launch[];
}

/** Launches by kernel and the size of the weight that they read: those have the same work. */
function rowsOf(groups: readonly Group[]): readonly Row[] {
  const rows = new Map<string, Row>();
  for (const launch of groups.flatMap(({ launches }) => launches)) {
    const weight = launch.inputs.find(
      ({ tensor }) => tensor.storage.kind === 'weight' && tensor.shape.length > 1,
    )?.tensor;
    const of = weight === undefined ? '' : `  ${weight.shape.join(' × ')} ${weight.dtype}`;
    const name = launch.kernel + of;
    const row = rows.get(name);
    if (row === undefined) rows.set(name, { name, launches: [launch] });
    else row.launches.push(launch);
  }
  return [...rows.values()];
}

export function kernelTable(groups: readonly Group[], times: Times | undefined, kind: Kind): HTMLElement {
  const total =
    times?.sum(
      kind,
      groups.flatMap(({ launches }) => launches),
    ) ?? 0;
  const rows = rowsOf(groups)
    .map((row) => ({ ...row, took: times?.sum(kind, row.launches) ?? 0 }))
    .sort((a, b) => b.took - a.took || b.launches.length - a.launches.length);
  const timed = total > 0;
  const head = ['Kernel', 'Launches', ...(timed ? ['Each', 'A step', 'Share'] : [])];
  const body = rows.map(({ name, launches, took }) => {
    const share = timed ? took / total : 0;
    const bar = h('i');
    bar.style.width = `${share * 100}%`;
    return h(
      'tr',
      {},
      h('td', { class: 'code' }, name),
      h('td', { class: 'n' }, count(launches.length)),
      ...(timed
        ? [
            h('td', { class: 'n' }, time(took / launches.length)),
            h('td', { class: 'n' }, time(took)),
            h('td', { class: 'share' }, h('span', { class: 'gauge' }, bar), percent(share)),
          ]
        : []),
    );
  });
  return h(
    'table',
    { class: 'kernels' },
    h('thead', {}, h('tr', {}, ...head.map((text) => h('th', { scope: 'col' }, text)))),
    h('tbody', {}, ...body),
  );
}

/** What was timed, in a sentence. */
export function aboutTimes(times: Times, kind: Kind, groups: readonly Group[]): string {
  const steps = times.of(kind);
  if (steps === undefined)
    return kind === 'context' ? 'No step with a prompt was timed.' : 'No step of generation alone was timed.';
  const launched = times.sum(
    kind,
    groups.flatMap(({ launches }) => launches),
  );
  const tokens = steps.numTokens / steps.numSteps;
  const whole = steps.totalMs / steps.numSteps;
  const whose = times.load === 'own' ? ' Nobody asked anything, so a request was made for it.' : '';
  return `${plural(steps.numSteps, 'step')} of ${tokens.toFixed(tokens < 10 ? 1 : 0)} tokens on average: ${time(whole)} each, ${time(launched)} of it in kernels.${whose}`;
}
