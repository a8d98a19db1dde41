// The sampling controls: each is a field of the request. What is left empty is left out, so that the model's own recommendation holds.
import { h, memory } from '../dom.ts';

interface Control {
  readonly field: string;
  readonly label: string;
  readonly help: string;
  readonly min?: number;
  readonly max?: number;
  readonly step?: number;
}

const numbers: readonly Control[] = [
  { field: 'temperature', label: 'Temperature', help: '0 takes the likeliest token', min: 0, max: 2, step: 0.05 },
  { field: 'top_p', label: 'Top-p', help: 'likeliest tokens that make up this share', min: 0, max: 1, step: 0.01 },
  { field: 'top_k', label: 'Top-k', help: 'so many likeliest tokens; 0: all', min: 0, step: 1 },
  {
    field: 'min_p',
    label: 'Min-p',
    help: 'tokens at least this likely, as a share of the likeliest',
    min: 0,
    max: 1,
    step: 0.01,
  },
  { field: 'max_completion_tokens', label: 'Max tokens', help: 'empty: as many as fit', min: 1, step: 1 },
  { field: 'seed', label: 'Seed', help: 'the same seed gives the same answer', step: 1 },
  {
    field: 'presence_penalty',
    label: 'Presence',
    help: 'penalty for tokens that were used',
    min: -2,
    max: 2,
    step: 0.1,
  },
  {
    field: 'frequency_penalty',
    label: 'Frequency',
    help: 'penalty for each time a token was used',
    min: -2,
    max: 2,
    step: 0.1,
  },
  {
    field: 'repetition_penalty',
    label: 'Repetition',
    help: 'divides the likelihood of used tokens; 1: off',
    min: 0.1,
    max: 2,
    step: 0.05,
  },
];

export class Controls {
  readonly element: HTMLElement;
  readonly #inputs = new Map<string, HTMLInputElement>();
  readonly #stop: HTMLInputElement;
  readonly #system: HTMLTextAreaElement;

  constructor() {
    const saved = JSON.parse(memory.get('sampling') ?? '{}') as Record<string, string>;
    const grid = h('div', { class: 'controls' });
    for (const { field, label, help, min, max, step } of numbers) {
      const input = h('input', {
        type: 'number',
        id: `s-${field}`,
        inputmode: 'decimal',
        min,
        max,
        step: step ?? 'any',
        placeholder: 'auto',
        title: help,
        value: saved[field] ?? '',
      });
      this.#inputs.set(field, input);
      grid.append(h('label', { for: `s-${field}`, title: help }, h('span', {}, label), input));
    }
    this.#stop = h('input', {
      type: 'text',
      id: 's-stop',
      placeholder: 'none',
      value: saved.stop ?? '',
      title: 'texts that end the answer, with | between them',
    });
    grid.append(h('label', { for: 's-stop', class: 'wide' }, h('span', {}, 'Stop at'), this.#stop));
    this.#system = h('textarea', { id: 's-system', rows: 2, placeholder: 'You are …' }, saved.system ?? '');
    const reset = h('button', { type: 'button', class: 'quiet' }, 'Back to the model’s own');
    reset.addEventListener('click', () => {
      for (const input of this.#inputs.values()) input.value = '';
      this.#stop.value = '';
      this.#changed();
    });
    this.element = h(
      'details',
      { class: 'sampling' },
      h('summary', {}, 'Sampling and system prompt'),
      h('label', { class: 'system', for: 's-system' }, h('span', {}, 'System prompt'), this.#system),
      grid,
      reset,
    );
    this.element.addEventListener('change', () => this.#changed());
  }

  get system(): string {
    return this.#system.value.trim();
  }

  /** The fields of the request that were set, or which of them is wrong. */
  read(): { readonly fields: Readonly<Record<string, unknown>> } | { readonly wrong: string } {
    const fields: Record<string, unknown> = {};
    for (const { field, label } of numbers) {
      const input = this.#inputs.get(field)!;
      if (!input.checkValidity()) {
        input.focus();
        return { wrong: `${label}: ${input.validationMessage}` };
      }
      if (input.value !== '') fields[field] = Number(input.value);
    }
    const stop = this.#stop.value.split('|').filter((text) => text !== '');
    return { fields: { ...fields, ...(stop.length === 0 ? {} : { stop }) } };
  }

  #changed(): void {
    const values = Object.fromEntries([...this.#inputs].map(([field, { value }]) => [field, value]));
    memory.set('sampling', JSON.stringify({ ...values, stop: this.#stop.value, system: this.#system.value }));
  }
}
