// Strip charts over one time axis, like a chart recorder: a name and its value on the left, the last two minutes on the right.
import { h, say } from '../dom.ts';
import { count, quantile, rate, time } from '../format.ts';
import { colour, drawing } from '../theme.ts';
import { type Series, type Slice, sliceMs, spanMs } from './series.ts';

/** Where times and values lie on a canvas. */
interface Plot {
  readonly context: CanvasRenderingContext2D;
  readonly width: number;
  readonly bottom: number;
  readonly x: (time: number) => number;
  readonly y: (value: number) => number;
}

interface StripSpec {
  readonly name: string;
  /** What the reader sees at the top of the scale. */
  readonly scale: (most: number) => string;
  /** The greatest value, which the scale has to reach. */
  readonly most: (series: Series) => number;
  readonly draw: (plot: Plot, series: Series) => void;
  readonly value: (series: Series, limits: StripLimits) => readonly [value: string, more: string];
  /** A value that is marked where it lies within the scale. */
  readonly limit?: (limits: StripLimits) => number;
  /** Said where there is nothing to draw. */
  readonly empty: string;
}

export interface StripLimits {
  readonly maxBatchSize: number;
}

const top = 14;
const right = 2;

/** The next number that reads well. */
function nice(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * ([1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((step) => step * power >= value) ?? 10);
}

/** A filled outline over the slices, in steps: what was counted in a slice is true of all of it. */
function area({ context, x, y, bottom }: Plot, series: Series, upper: (slice: Slice) => number): void {
  context.beginPath();
  let open = false;
  for (const [at, slice] of series.slices()) {
    const value = slice === undefined ? 0 : upper(slice);
    if (value === 0) {
      if (open) context.lineTo(x(at), bottom);
      open = false;
      continue;
    }
    if (!open) context.moveTo(x(at), bottom);
    context.lineTo(x(at), y(value));
    context.lineTo(x(at + sliceMs), y(value));
    open = true;
  }
  if (open) context.lineTo(x(Math.floor(series.now / sliceMs) * sliceMs), bottom);
  context.fill();
}

const perSecond = 1000 / sliceMs;

const specs: readonly StripSpec[] = [
  {
    name: 'Throughput',
    empty: 'no tokens in the last two minutes',
    scale: (most) => `${count(most)} tok/s`,
    most: (series) => {
      let most = 0;
      for (const [, slice] of series.slices())
        if (slice !== undefined) most = Math.max(most, (slice.generated + slice.context) * perSecond);
      return most;
    },
    draw: (plot, series) => {
      plot.context.fillStyle = colour('ctx');
      area(plot, series, ({ generated, context }) => (context === 0 ? 0 : (generated + context) * perSecond));
      plot.context.fillStyle = colour('gen');
      area(plot, series, ({ generated }) => generated * perSecond);
    },
    value: (series) => {
      const { generated, context } = series.rate(2);
      return [`${rate(generated)} tok/s`, context === 0 ? 'generated' : `generated, and ${rate(context)} of prompts`];
    },
  },
  {
    name: 'First token',
    empty: 'no request since this page was opened',
    scale: time,
    most: (series) => series.firstTokens.reduce((most, { ms }) => Math.max(most, ms), 0),
    draw: ({ context, x, y }, series) => {
      context.fillStyle = colour('ctx');
      for (const { time: at, ms } of series.firstTokens) {
        context.beginPath();
        context.arc(x(at), y(ms), 2.25, 0, 7);
        context.fill();
      }
    },
    value: (series) => medianOf(series.toFirst()),
  },
  {
    name: 'Between tokens',
    empty: 'no request since this page was opened',
    scale: time,
    most: (series) => {
      let most = 0;
      for (const [, slice] of series.slices()) most = Math.max(most, p95(slice) ?? 0);
      return most;
    },
    draw: ({ context, x, y }, series) => {
      for (const [at, slice] of series.slices()) {
        const high = p95(slice);
        if (high === undefined) continue;
        const middle = y(quantile(sorted(slice!), 0.5)!);
        const width = x(at + sliceMs) - x(at);
        context.fillStyle = colour('gen-soft');
        context.fillRect(x(at), y(high), width, Math.max(0, middle - y(high)));
        context.fillStyle = colour('gen');
        context.fillRect(x(at), middle - 0.75, width + 0.25, 1.5);
      }
    },
    value: (series) => medianOf(series.between()),
  },
  {
    name: 'Batch',
    empty: 'nothing has run in the last two minutes',
    scale: (most) => count(most),
    most: (series) => {
      let most = 0;
      for (const [, slice] of series.slices())
        if (slice !== undefined) most = Math.max(most, slice.running + slice.waiting);
      return most;
    },
    draw: (plot, series) => {
      plot.context.fillStyle = colour('wait');
      area(plot, series, ({ running, waiting }) => (waiting === 0 ? 0 : running + waiting));
      plot.context.fillStyle = colour('run');
      area(plot, series, ({ running }) => running);
    },
    limit: ({ maxBatchSize }) => maxBatchSize,
    value: (series, { maxBatchSize }) => {
      const slices = [...series.slices()];
      const { running = 0, waiting = 0 } = slices.at(-1)?.[1] ?? {};
      return [
        `${count(running)} of ${count(maxBatchSize)}`,
        waiting === 0 ? 'running' : `running, ${count(waiting)} wait`,
      ];
    },
  },
];

function sorted({ between }: Slice): number[] {
  return between.toSorted((a, b) => a - b);
}

function p95(slice: Slice | undefined): number | undefined {
  return slice === undefined ? undefined : quantile(sorted(slice), 0.95);
}

function medianOf(pair: readonly [number, number] | undefined): readonly [string, string] {
  return pair === undefined ? ['–', 'median'] : [time(pair[0]), `median, 95 % within ${time(pair[1])}`];
}

class Strip {
  readonly element: HTMLElement;
  readonly #spec: StripSpec;
  readonly #value = h('span', { class: 'value' });
  readonly #more = h('span', { class: 'more' });
  readonly #empty = h('span', { class: 'nothing' });
  readonly #canvas = h('canvas', { role: 'img' });
  /** The scale does not shrink at once: it would jump with every peak that leaves. */
  #most = 0;

  constructor(spec: StripSpec) {
    this.#spec = spec;
    this.#empty.textContent = spec.empty;
    this.element = h(
      'div',
      { class: 'strip' },
      h('div', { class: 'reading' }, h('h3', {}, spec.name), this.#value, this.#more),
      h('div', { class: 'chart' }, this.#canvas, this.#empty),
    );
  }

  draw(series: Series, limits: StripLimits): void {
    const [value, more] = this.#spec.value(series, limits);
    say(this.#value, value);
    say(this.#more, more);
    const most = this.#spec.most(series);
    this.#empty.hidden = most > 0;
    this.#canvas.setAttribute('aria-label', `${this.#spec.name}: ${value} ${more}`);
    const drawn = drawing(this.#canvas);
    if (drawn === undefined) return;
    const { context, width, height } = drawn;
    const bottom = height - 1;
    const x = (at: number): number => width - right - ((series.now - at) / spanMs) * (width - right);
    context.fillStyle = colour('rule');
    context.fillRect(0, bottom, width, 1);
    for (let seconds = 30; seconds < 120; seconds += 30)
      context.fillRect(Math.round(x(series.now - seconds * 1000)), bottom - 4, 1, 4);
    if (most === 0) return;
    const wanted = nice(most);
    this.#most = wanted > this.#most || most < this.#most / 4 ? wanted : this.#most;
    const scale = this.#most;
    const y = (at: number): number => bottom - (at / scale) * (bottom - top);
    context.fillRect(0, top, width, 1);
    const limit = this.#spec.limit?.(limits);
    this.#spec.draw({ context, width, bottom, x, y }, series);
    if (limit !== undefined && limit < scale) {
      context.fillStyle = colour('ink-2');
      context.fillRect(0, Math.round(y(limit)), width, 1);
    }
    context.fillStyle = colour('ink-2');
    context.font = `11px ${colour('mono')}`;
    context.textBaseline = 'alphabetic';
    context.textAlign = 'right';
    context.fillText(this.#spec.scale(scale), width, top - 4);
  }
}

export class Strips {
  readonly element: HTMLElement;
  readonly #strips = specs.map((spec) => new Strip(spec));

  constructor() {
    const axis = h('div', { class: 'axis', 'aria-hidden': 'true' });
    for (const label of ['2 min ago', '90 s', '1 min', '30 s', 'now']) axis.append(h('span', {}, label));
    this.element = h(
      'div',
      { class: 'strips' },
      ...this.#strips.map(({ element }) => element),
      h('div', { class: 'strip' }, h('div', { class: 'reading' }), axis),
    );
  }

  draw(series: Series, limits: StripLimits): void {
    for (const strip of this.#strips) strip.draw(series, limits);
  }
}
