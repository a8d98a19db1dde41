// The KV cache as a map: a cell a block, coloured by who holds it. Where there are more blocks than cells a cell stands for several and shows the most held one.
import type { SequenceSnapshot } from '../../src/run/executor/snapshot.ts';
import type { EngineNow } from '../../src/serve/dashboard/api.ts';
import { h, say } from '../dom.ts';
import { count, percent, plural } from '../format.ts';
import { colour, drawing } from '../theme.ts';
import { keyOf } from './step.ts';

const free = 0;
const cached = 1;

/** Names of colours by state: free, cached, held by one, two, three, more. */
const colours = ['block-free', 'block-cached', 'block-1', 'block-2', 'block-3', 'block-4'] as const;
const names = ['free', 'kept for reuse', 'held by one', 'by two', 'by three', 'by more'] as const;

function idsOf({ blocks }: SequenceSnapshot): number[] {
  const ids: number[] = [];
  for (let i = 0; i < blocks.length; i += 2) for (let j = 0; j < blocks[i + 1]!; j++) ids.push(blocks[i]! + j);
  return ids;
}

/** How blocks lie on the canvas. */
interface Grid {
  readonly columns: number;
  readonly size: number;
  /** Blocks in a cell. */
  readonly each: number;
}

/** The most that the map takes of the page's height, pixels. */
const mostHeight = 208;
const sizes = { most: 16, least: 4 };

/** The largest cells with which all blocks fit; where the smallest are too large several blocks share one. */
function gridFor(width: number, blocks: number): Grid {
  for (let size = sizes.most; size >= sizes.least; size--) {
    const columns = Math.floor(width / size);
    if (columns * Math.floor(mostHeight / size) >= blocks) return { columns, size, each: 1 };
  }
  const columns = Math.max(1, Math.floor(width / sizes.least));
  const each = Math.ceil(blocks / (columns * Math.floor(mostHeight / sizes.least)));
  return { columns, size: sizes.least, each };
}

export class BlockMap {
  readonly element: HTMLElement;
  readonly #about = h('p', { class: 'about' });
  readonly #canvas = h('canvas', { class: 'map', tabindex: 0, role: 'img' });
  readonly #told = h('p', { class: 'told', 'aria-live': 'polite' });
  readonly #counts = names.map(() => h('b', {}, '0'));
  #states = new Uint8Array();
  #running: readonly SequenceSnapshot[] = [];
  #grid: Grid = { columns: 1, size: 4, each: 1 };
  #chosen: string | undefined;
  #pointed: number | undefined;

  constructor() {
    const legend = h('ul', { class: 'legend' });
    for (const [i, name] of names.entries())
      legend.append(h('li', {}, h('i', { class: colours[i]! }), this.#counts[i]!, ` ${name}`));
    this.element = h(
      'section',
      { class: 'blocks' },
      h('header', {}, h('h2', {}, 'KV blocks'), this.#about),
      this.#canvas,
      this.#told,
      legend,
    );
    this.#canvas.addEventListener('pointermove', ({ offsetX, offsetY }) => this.#point(this.#at(offsetX, offsetY)));
    this.#canvas.addEventListener('pointerleave', () => this.#point(undefined));
    this.#canvas.addEventListener('blur', () => this.#point(undefined));
    this.#canvas.addEventListener('keydown', (event) => this.#key(event));
  }

  /** Lights the blocks of one sequence up. */
  choose(key: string | undefined): void {
    this.#chosen = key;
    this.draw();
  }

  update({ blocks, running, kvCacheStats: kv }: EngineNow): void {
    this.#states = Uint8Array.from(atob(blocks), (character) => character.charCodeAt(0));
    this.#running = running;
    const counts = new Array<number>(names.length).fill(0);
    for (const state of this.#states) counts[Math.min(state, names.length - 1)]!++;
    counts.forEach((value, i) => void say(this.#counts[i]!, count(value)));
    const looked = kv.reusedBlocks + kv.missedBlocks;
    const about = `${count(kv.usedNumBlocks)} of ${count(kv.maxNumBlocks)} held, ${kv.tokensPerBlock} tokens each${looked === 0 ? '' : `; ${percent(kv.cacheHitRate)} of prompt blocks were found`}`;
    say(this.#about, about);
    this.#canvas.setAttribute(
      'aria-label',
      `Map of the KV cache. ${about}. ${names.map((name, i) => `${counts[i]} ${name}`).join(', ')}. Arrow keys tell of single blocks.`,
    );
    this.#tell();
    this.draw();
  }

  draw(): void {
    const states = this.#states;
    this.#grid = gridFor(this.#canvas.clientWidth, Math.max(1, states.length));
    const { columns, size, each } = this.#grid;
    this.#canvas.style.height = `${Math.ceil(states.length / each / columns) * size}px`;
    const drawn = drawing(this.#canvas);
    if (drawn === undefined) return;
    const { context } = drawn;
    const chosen = this.#running.find((sequence) => keyOf(sequence) === this.#chosen);
    const lit = chosen && new Set(idsOf(chosen).map((id) => Math.floor(id / each)));
    const gap = size > 6 ? 2 : 1;
    const fills = colours.map(colour);
    for (let cell = 0; cell * each < states.length; cell++) {
      let state = free;
      for (let i = cell * each; i < Math.min(states.length, (cell + 1) * each); i++)
        state = Math.max(state, states[i]!);
      const x = (cell % columns) * size;
      const y = Math.floor(cell / columns) * size;
      context.globalAlpha = lit !== undefined && !lit.has(cell) ? 0.25 : 1;
      context.fillStyle = fills[Math.min(state, fills.length - 1)]!;
      context.fillRect(x, y, size - gap, size - gap);
      if (cell === this.#pointed) {
        context.globalAlpha = 1;
        context.strokeStyle = colour('ink');
        context.strokeRect(x - 0.5, y - 0.5, size - gap + 1, size - gap + 1);
      }
    }
    context.globalAlpha = 1;
  }

  #at(x: number, y: number): number | undefined {
    const { columns, size, each } = this.#grid;
    const column = Math.floor(x / size);
    const cell = Math.floor(y / size) * columns + column;
    return column < columns && cell >= 0 && cell * each < this.#states.length ? cell : undefined;
  }

  #point(cell: number | undefined): void {
    this.#pointed = cell;
    this.#tell();
    this.draw();
  }

  #key(event: KeyboardEvent): void {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.#grid.columns, ArrowDown: this.#grid.columns }[
      event.key
    ];
    if (step === undefined) return;
    event.preventDefault();
    const cells = Math.ceil(this.#states.length / this.#grid.each);
    this.#point(Math.max(0, Math.min(cells - 1, this.#pointed === undefined ? 0 : this.#pointed + step)));
  }

  #tell(): void {
    if (this.#pointed === undefined) return void say(this.#told, '');
    const { each } = this.#grid;
    const first = this.#pointed * each;
    const last = Math.min(this.#states.length, first + each) - 1;
    const holders = this.#running.filter((sequence) => idsOf(sequence).some((id) => id >= first && id <= last));
    const state = this.#states[first]!;
    const what = each === 1 ? `Block ${count(first)}` : `Blocks ${count(first)} to ${count(last)}`;
    const who =
      holders.length > 0
        ? `${plural(holders.length, 'sequence')}: ${holders.map((sequence) => `#${keyOf(sequence)}`).join(', ')}`
        : state === free
          ? 'free'
          : state === cached
            ? 'nobody’s; its content is kept for a prompt that begins alike'
            : 'held';
    say(this.#told, `${what}: ${who}`);
  }
}
