// The engine as it was built: what it is, its launches as a graph, and, when asked, how long each takes.
import type { EngineDescription, ProfileAnswer } from '../../src/serve/dashboard/api.ts';
import { getJson, postJson } from '../api.ts';
import { h, say } from '../dom.ts';
import { bytes, count, time } from '../format.ts';
import { type Drawing, drawGroup } from './graph.ts';
import { aboutTimes, kernelTable } from './kernels.ts';
import { type Argument, type Group, type Kind, type Launch, readPlan, Times } from './plan.ts';

const steps = 64;

function shapeOf({ tensor }: Argument): string {
  const dims = tensor.shape.map((dim) => (typeof dim === 'object' ? JSON.stringify(dim) : String(dim)));
  return `${tensor.dtype} [${dims.join(', ')}]`;
}

function placeOf({ tensor, from }: Argument): string {
  switch (tensor.storage.kind) {
    case 'weight':
      return 'weight';
    case 'input':
      return 'input of the step';
    case 'arena':
      return from === undefined ? `memory at ${bytes(tensor.storage.offset)}` : `from ${from.name}`;
    default:
      return tensor.storage satisfies never;
  }
}

function definition(pairs: readonly (readonly [string, string])[]): HTMLElement {
  return h('dl', {}, ...pairs.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
}

function factsOf({ config, memory }: EngineDescription): readonly (readonly [string, string])[] {
  const { pretrained_config: model, build_config: build } = config;
  const size = (name: string): string => (typeof model[name] === 'number' ? count(model[name]) : '–');
  return [
    ['Architecture', model.architecture],
    ['Layers', size('num_hidden_layers')],
    ['Hidden size', size('hidden_size')],
    ['Heads', `${size('num_attention_heads')}, ${size('num_key_value_heads')} of keys and values`],
    ['Vocabulary', count(model.vocab_size)],
    ['Target', `${build.target}, ${build.dtype}`],
    ['Batch', `${count(build.max_batch_size)} sequences, ${count(build.max_num_tokens)} tokens a step`],
    ['Sequence', `${count(build.max_seq_len)} tokens`],
    ['Weights', bytes(memory.weights)],
    ['Activations', bytes(memory.arena)],
    ['KV cache', `${bytes(memory.kvToken)} a token, ${bytes(memory.kvBlock)} a block`],
    ['Built by', `TypeRT ${config.producer.version}`],
  ];
}

export class EngineView {
  readonly #element: HTMLElement;
  readonly #about = h('p', { class: 'about', role: 'status' });
  readonly #facts = h('div', { class: 'facts-list' });
  readonly #table = h('div', { class: 'table', tabindex: 0, role: 'group', 'aria-label': 'Kernels' });
  readonly #outline = h('ul', { class: 'outline', 'aria-label': 'Parts of the plan' });
  readonly #drawing = h('div', { class: 'drawing', tabindex: 0, role: 'group', 'aria-label': 'Graph' });
  readonly #detail = h('div', { class: 'detail' });
  readonly #time = h('button', { type: 'button', class: 'send' }, 'Time the kernels');
  readonly #kinds = h('div', { class: 'kinds', role: 'group', 'aria-label': 'Which steps' });
  #model = '';
  #shown = '';
  #groups: readonly Group[] = [];
  #group: Group | undefined;
  #times: Times | undefined;
  #kind: Kind = 'generation';
  #drawn: Drawing | undefined;

  constructor(element: HTMLElement) {
    this.#element = element;
    for (const [kind, label] of [
      ['generation', 'Generation'],
      ['context', 'Prompts'],
    ] as const) {
      const button = h(
        'button',
        { type: 'button', class: 'quiet', 'aria-pressed': String(kind === this.#kind) },
        label,
      );
      button.addEventListener('click', () => {
        this.#kind = kind;
        for (const other of this.#kinds.children) other.setAttribute('aria-pressed', String(other === button));
        this.#draw();
      });
      this.#kinds.append(button);
    }
    this.#time.addEventListener('click', () => void this.#profile());
    element.append(
      h('section', {}, h('header', {}, h('h2', {}, 'The engine')), this.#facts),
      h(
        'section',
        {},
        h('header', {}, h('h2', {}, 'Where a step’s time goes'), h('div', { class: 'right' }, this.#kinds, this.#time)),
        this.#about,
        this.#table,
      ),
      h(
        'section',
        {},
        h('header', {}, h('h2', {}, 'Graph and plan')),
        h('div', { class: 'plan' }, this.#outline, this.#drawing, this.#detail),
      ),
    );
    this.#kinds.hidden = true;
  }

  set model(name: string) {
    this.#model = name;
    if (!this.#element.hidden) this.open();
  }

  /** Called when the view is shown: what it shows is fetched then. */
  open(): void {
    if (this.#model === '' || this.#shown === this.#model) return;
    this.#shown = this.#model;
    this.#times = undefined;
    this.#kinds.hidden = true;
    say(this.#about, `Times ${steps} steps, launch by launch. When nobody asks anything, a request is made for it.`);
    getJson<EngineDescription>(`/v1/typert/engine?model=${encodeURIComponent(this.#model)}`).then(
      (engine) => {
        this.#facts.replaceChildren(definition(factsOf(engine)));
        this.#groups = readPlan(engine.plan);
        this.#group = this.#groups.find(({ name }) => name.startsWith('Layer')) ?? this.#groups[0];
        this.#draw();
      },
      (error: unknown) => {
        this.#shown = '';
        say(this.#about, error instanceof Error ? error.message : String(error));
      },
    );
  }

  async #profile(): Promise<void> {
    this.#time.disabled = true;
    say(this.#about, 'Timing …');
    try {
      const response = await postJson('/v1/typert/profile', { model: this.#model, steps });
      this.#times = new Times((await response.json()) as ProfileAnswer);
      this.#kinds.hidden = false;
      this.#draw();
    } catch (error) {
      say(this.#about, error instanceof Error ? error.message : String(error));
    } finally {
      this.#time.disabled = false;
    }
  }

  #draw(): void {
    const times = this.#times;
    this.#table.replaceChildren(kernelTable(this.#groups, times, this.#kind));
    if (times !== undefined) say(this.#about, aboutTimes(times, this.#kind, this.#groups));
    const most = Math.max(...this.#groups.map(({ launches }) => times?.sum(this.#kind, launches) ?? 0));
    this.#outline.replaceChildren(...this.#groups.map((group) => this.#part(group, most)));
    this.#show(this.#group);
  }

  #part(group: Group, most: number): HTMLElement {
    const took = this.#times?.sum(this.#kind, group.launches) ?? 0;
    const bar = h('i');
    bar.style.width = `${most === 0 ? 0 : (100 * took) / most}%`;
    const button = h(
      'button',
      { type: 'button', 'aria-pressed': String(group === this.#group) },
      h('span', {}, group.name),
      h('span', { class: 'n' }, took > 0 ? time(took) : `${group.launches.length}`),
      h('span', { class: 'gauge' }, bar),
    );
    button.addEventListener('click', () => {
      this.#group = group;
      for (const other of this.#outline.querySelectorAll('button'))
        other.setAttribute('aria-pressed', String(other === button));
      this.#show(group);
    });
    return h('li', {}, button);
  }

  #show(group: Group | undefined): void {
    if (group === undefined) return;
    this.#drawn = drawGroup(group, this.#times, this.#kind, (launch) => this.#tell(launch));
    this.#drawing.replaceChildren(this.#drawn.element);
    this.#tell(group.launches[0]!);
  }

  #tell(launch: Launch): void {
    this.#drawn?.choose(launch);
    const row = (argument: Argument): HTMLElement =>
      h(
        'tr',
        {},
        h('td', {}, argument.name),
        h('td', { class: 'code' }, shapeOf(argument)),
        h('td', {}, placeOf(argument)),
      );
    const settings = { ...launch.attrs, ...launch.config };
    const took = this.#times?.launch(this.#kind, launch);
    this.#detail.replaceChildren(
      h('h3', {}, launch.op),
      h('p', { class: 'code' }, launch.scope),
      definition([
        ['Kernel', launch.kernel],
        ['Launch', `${launch.index + 1} of ${launch.phase}`],
        ...(took === undefined ? [] : [['Takes', `${time(took)} a step`] as const]),
        ...Object.entries(settings)
          .filter(([, value]) => value !== undefined && value !== null)
          .map(([name, value]) => [name, typeof value === 'object' ? JSON.stringify(value) : String(value)] as const),
      ]),
      h('table', {}, h('caption', {}, 'Reads'), h('tbody', {}, ...launch.inputs.map(row))),
      h(
        'table',
        {},
        h('caption', {}, 'Writes'),
        h('tbody', {}, ...launch.outputs.map((out) => row({ ...out, from: undefined }))),
      ),
    );
  }
}
