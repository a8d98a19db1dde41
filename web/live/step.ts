// The newest step: its tokens packed side by side as the engine computes them, and below, every sequence with how far it is.
import type { SequenceSnapshot } from '../../src/run/executor/snapshot.ts';
import type { EngineNow } from '../../src/serve/dashboard/api.ts';
import { h, Keyed, say } from '../dom.ts';
import { count, plural, time } from '../format.ts';

export function keyOf({ requestId, index }: Pick<SequenceSnapshot, 'requestId' | 'index'>): string {
  return index === 0 ? `${requestId}` : `${requestId}.${index + 1}`;
}

const parts = ['reused', 'computed', 'prompt', 'generated', 'room'] as const;

type Part = (typeof parts)[number];

/** A sequence's row. */
class Row {
  readonly element: HTMLElement;
  readonly #name: HTMLElement;
  readonly #bar = h('span', { class: 'bar' });
  readonly #parts: Readonly<Record<Part, HTMLElement>>;
  readonly #inStep = h('span', { class: 'in-step' });
  readonly #numbers = h('span', { class: 'numbers' });
  readonly #age = h('span', { class: 'age' });

  constructor(key: string, choose: (key: string | undefined) => void) {
    this.#name = h('span', { class: 'name' }, `#${key}`);
    this.#parts = Object.fromEntries(parts.map((part) => [part, h('i', { class: part })])) as Record<Part, HTMLElement>;
    this.#bar.append(...parts.map((part) => this.#parts[part]));
    this.element = h('li', { tabindex: 0 }, this.#name, this.#bar, this.#inStep, this.#numbers, this.#age);
    for (const [event, chosen] of [
      ['mouseenter', key],
      ['mouseleave', undefined],
      ['focus', key],
      ['blur', undefined],
    ] as const)
      this.element.addEventListener(event, () => choose(chosen));
  }

  update(sequence: SequenceSnapshot, longest: number, now: number): void {
    const { promptLength, maxTokens, numCached, numReused, numGenerated, numInStep } = sequence;
    const inPrompt = Math.min(numCached, promptLength);
    const reused = Math.min(numReused, inPrompt);
    const tokens = {
      reused,
      computed: inPrompt - reused,
      prompt: promptLength - inPrompt,
      generated: numGenerated,
      room: Math.max(0, maxTokens - numGenerated),
    };
    for (const part of parts) this.#parts[part].style.flexGrow = String(tokens[part]);
    this.#bar.style.width = `${(100 * (promptLength + maxTokens)) / longest}%`;
    const context = inPrompt < promptLength || numGenerated === 0;
    this.element.dataset.phase = context ? 'context' : 'generation';
    say(this.#inStep, numInStep === 0 ? 'paused' : `+${numInStep}`);
    say(
      this.#numbers,
      context
        ? `prompt ${count(inPrompt)} of ${count(promptLength)}`
        : `${count(promptLength)} in, ${count(numGenerated)} of ${count(maxTokens)} out`,
    );
    say(this.#age, time(Math.max(0, now - sequence.arrivalTime)));
  }
}

export class StepView {
  readonly element: HTMLElement;
  readonly #title = h('h2', {}, 'Step');
  readonly #about = h('p', { class: 'about' });
  readonly #packed = h('div', { class: 'packed', role: 'img' });
  readonly #list = h('ul', { class: 'sequences', 'aria-label': 'Sequences in the batch' });
  readonly #legend = h(
    'p',
    { class: 'legend' },
    ...(
      [
        ['reused', 'found in the cache'],
        ['computed', 'prompt'],
        ['prompt', 'prompt to come'],
        ['generated', 'generated'],
        ['room', 'may still come'],
      ] as const
    ).map(([part, text]) => h('span', {}, h('i', { class: part }), text)),
  );
  /** What to do when nothing runs. */
  readonly #example = h('pre', { class: 'example', tabindex: 0, 'aria-label': 'How to ask by command line' });
  readonly #rows: Keyed<SequenceSnapshot, Row>;

  constructor(choose: (key: string | undefined) => void) {
    this.#rows = new Keyed(this.#list, (sequence) => new Row(keyOf(sequence), choose));
    this.element = h(
      'section',
      { class: 'step' },
      h('header', {}, this.#title, this.#about),
      this.#example,
      this.#packed,
      this.#list,
      this.#legend,
    );
  }

  set model(name: string) {
    const body = JSON.stringify({ model: name, messages: [{ role: 'user', content: 'A story about a fox' }] });
    this.#example.textContent = `curl ${location.origin}/v1/chat/completions \\\n  -H 'content-type: application/json' \\\n  -d '${body}'`;
  }

  update({ step, running, time: now, iterations }: EngineNow, maxNumTokens: number, busy: boolean): void {
    this.element.dataset.idle = String(!busy);
    if (!busy || step === undefined) {
      say(this.#title, step === undefined ? 'Step' : `Step ${count(step.iter)}`);
      say(
        this.#about,
        step === undefined
          ? 'The engine has computed nothing yet. Its first step runs with the first request: ask something.'
          : 'was the last one. The engine sleeps until a request comes.',
      );
      this.#packed.replaceChildren();
      this.#packed.removeAttribute('aria-label');
      this.#rows.show([], keyOf, () => {});
      return;
    }
    say(this.#title, `Step ${count(step.iter)}`);
    const context = step.entries.reduce((sum, entry) => sum + (entry.context ? entry.count : 0), 0);
    const took = iterations.at(-1)?.latencyMs;
    const about = `${plural(step.numTokens, 'token')} of ${plural(step.entries.length, 'sequence')}${context === 0 ? '' : `, ${count(context)} of prompts`}; room for ${count(maxNumTokens)}${took === undefined ? '' : `; the last took ${time(took)}`}`;
    say(this.#about, about);
    this.#packed.setAttribute('aria-label', about);
    this.#pack(step.entries);
    const longest = running.reduce((most, { promptLength, maxTokens }) => Math.max(most, promptLength + maxTokens), 1);
    this.#rows.show(running, keyOf, (row, sequence) => row.update(sequence, longest, now));
  }

  #pack(entries: NonNullable<EngineNow['step']>['entries']): void {
    const packed = this.#packed;
    while (packed.childElementCount > entries.length) packed.lastElementChild!.remove();
    while (packed.childElementCount < entries.length) packed.append(h('i'));
    entries.forEach((entry, i) => {
      const element = packed.children[i] as HTMLElement;
      element.className = entry.context ? 'computed' : 'generated';
      element.style.flexGrow = String(entry.count);
    });
  }
}
