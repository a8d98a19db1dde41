// A group of launches as a drawing: one below the other in the order in which they run, with lines from who writes to who reads.
import { s } from '../dom.ts';
import { time } from '../format.ts';
import type { Group, Kind, Launch, Times } from './plan.ts';

const box = { width: 250, height: 40, gap: 26 };
const lanes = { first: 22, step: 13 };
const margin = { left: 6, top: 30, bottom: 30 };

/** All that reads one result: a line from its writer, with a branch to each reader. */
interface Line {
  readonly from: Launch | undefined;
  readonly cache: boolean;
  readonly to: Launch[];
}

/** The lines of a group; arguments that come from one product (q, k and v) are one line. */
function linesOf(launches: readonly Launch[]): readonly Line[] {
  const lines: Line[] = [];
  const join = (from: Launch | undefined, to: Launch, cache: boolean): void => {
    const line = lines.find((other) => other.from === from && other.cache === cache);
    if (line === undefined) lines.push({ from, cache, to: [to] });
    else if (!line.to.includes(to)) line.to.push(to);
  };
  for (const launch of launches) {
    for (const { tensor, from } of launch.inputs) if (tensor.storage.kind === 'arena') join(from, launch, false);
    if (launch.cacheFrom !== undefined) join(launch.cacheFrom, launch, true);
  }
  return lines;
}

export interface Drawing {
  readonly element: SVGElement;
  /** Marks the chosen launch. */
  choose(launch: Launch | undefined): void;
}

export function drawGroup(
  { name, launches }: Group,
  times: Times | undefined,
  kind: Kind,
  choose: (launch: Launch) => void,
): Drawing {
  const y = (launch: Launch): number => margin.top + launches.indexOf(launch) * (box.height + box.gap);
  const height = margin.top + launches.length * (box.height + box.gap) - box.gap + margin.bottom;
  const lines = s('g', { class: 'lines' });
  const rightEdge = margin.left + box.width;
  let mostLane = 0;
  const labels: { readonly y: number; readonly text: string; readonly style: string }[] = [];
  /** Where each lane at the right is taken until. */
  const taken: number[] = [];
  for (const { from, to, cache } of linesOf(launches)) {
    const inside = from !== undefined && launches.includes(from);
    const style = cache ? 'line cache' : 'line';
    const next = inside && !cache ? launches[launches.indexOf(from) + 1] : undefined;
    if (next !== undefined && to.includes(next))
      lines.append(line(style, `M${margin.left + box.width / 2} ${y(from!) + box.height}V${y(next)}`));
    const far = to.filter((launch) => launch !== next);
    if (far.length === 0) continue;
    const start = inside ? y(from) + box.height * 0.7 : 8;
    const end = y(far.at(-1)!) + box.height * 0.3;
    let lane = taken.findIndex((until) => until <= start);
    if (lane < 0) lane = taken.length;
    taken[lane] = end + 4;
    mostLane = Math.max(mostLane, lane + 1);
    const x = rightEdge + lanes.first + lane * lanes.step;
    const begin = inside ? `M${rightEdge} ${start}H${x - 6}q6 0 6 6` : `M${x} ${start}`;
    far.forEach((launch, i) => {
      const at = y(launch) + box.height * 0.3;
      lines.append(line(style, `${i === 0 ? begin : `M${x} ${y(far[i - 1]!)}`}V${at - 6}q0 6 -6 6H${rightEdge + 1}`));
    });
    if (inside)
      labels.push({ y: (start + end) / 2, text: cache ? 'KV cache' : 'residual', style: cache ? 'cache' : 'plain' });
    else if (labels.every(({ y: other }) => other > start + 8))
      labels.push({ y: start + 8, text: 'from before', style: 'plain' });
  }
  // Beside all lines, and never one over the other.
  const beside = rightEdge + lanes.first + (mostLane - 1) * lanes.step + 8;
  let free = 0;
  for (const { y: wanted, text, style } of labels.toSorted((a, b) => a.y - b.y)) {
    const at = Math.max(wanted, free);
    lines.append(s('text', { x: beside, y: at, class: style }, text));
    free = at + 15;
  }
  const most = launches.reduce((greatest, launch) => Math.max(greatest, times?.launch(kind, launch) ?? 0), 0);
  const nodes = launches.map((launch) => node(launch, y(launch), times?.launch(kind, launch), most, choose));
  const width = rightEdge + lanes.first + mostLane * lanes.step + 84;
  const element = s(
    'svg',
    {
      class: 'graph',
      viewBox: `0 0 ${width} ${height}`,
      width,
      height,
      role: 'group',
      'aria-label': `Launches of ${name}`,
    },
    s(
      'defs',
      {},
      s(
        'marker',
        { id: 'tip', viewBox: '0 0 6 6', refX: 5, refY: 3, markerWidth: 6, markerHeight: 6, orient: 'auto' },
        s('path', { d: 'M0 0L6 3L0 6z', class: 'tip' }),
      ),
    ),
    lines,
    ...nodes,
  );
  return {
    element,
    choose: (chosen) => {
      launches.forEach((launch, i) => {
        nodes[i]!.setAttribute('aria-pressed', String(launch === chosen));
      });
    },
  };
}

function line(style: string, d: string): SVGElement {
  return s('path', { class: style, d, 'marker-end': 'url(#tip)' });
}

function node(launch: Launch, top: number, took: number | undefined, most: number, choose: (launch: Launch) => void) {
  const share = took === undefined || most === 0 ? 0 : took / most;
  const element = s(
    'g',
    {
      class: 'launch',
      transform: `translate(${margin.left} ${top})`,
      tabindex: 0,
      role: 'button',
      'aria-pressed': 'false',
    },
    s('rect', { class: 'body', width: box.width, height: box.height }),
    s('rect', { class: 'heat', y: box.height - 3, width: Math.max(0, share * box.width), height: 3 }),
    s('text', { x: 10, y: 16, class: 'op' }, launch.op),
    ' ',
    s('text', { x: 10, y: 31, class: 'scope' }, launch.name),
    ' ',
    s('text', { x: box.width - 10, y: 16, class: 'took' }, took === undefined ? '' : time(took)),
  );
  element.addEventListener('click', () => choose(launch));
  element.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' && event.key !== ' ') return;
    event.preventDefault();
    choose(launch);
  });
  return element;
}
