// Who waits for a place in the batch, in the order in which they will get it.
import type { SequenceSnapshot } from '../../src/run/executor/snapshot.ts';
import type { EngineNow } from '../../src/serve/dashboard/api.ts';
import { h, Keyed, say } from '../dom.ts';
import { count, plural, time } from '../format.ts';
import { keyOf } from './step.ts';

const shown = 8;

class Row {
  readonly element: HTMLElement;
  readonly #tokens = h('td');
  readonly #waited = h('td');
  readonly #note = h('td');

  constructor(key: string) {
    this.element = h('tr', {}, h('td', {}, `#${key}`), this.#tokens, this.#waited, this.#note);
  }

  update({ promptLength, maxTokens, arrivalTime, numPreemptions, priority }: SequenceSnapshot, now: number): void {
    say(this.#tokens, `${count(promptLength)} + ${count(maxTokens)}`);
    say(this.#waited, time(Math.max(0, now - arrivalTime)));
    say(this.#note, numPreemptions > 0 ? 'gave its blocks back' : priority === 0.5 ? '' : `priority ${priority}`);
  }
}

export class QueueView {
  readonly element: HTMLElement;
  readonly #about = h('p', { class: 'about' });
  readonly #body = h('tbody');
  readonly #table: HTMLElement;
  readonly #more = h('p', { class: 'more' });
  readonly #rows = new Keyed<SequenceSnapshot, Row>(this.#body, (sequence) => new Row(keyOf(sequence)));

  constructor() {
    const head = h(
      'tr',
      {},
      ...['Request', 'Prompt + limit', 'Waits', ''].map((text) => h('th', { scope: 'col' }, text)),
    );
    this.#table = h('table', {}, h('thead', {}, head), this.#body);
    this.element = h(
      'section',
      { class: 'queue' },
      h('header', {}, h('h2', {}, 'Queue'), this.#about),
      this.#table,
      this.#more,
    );
  }

  update({ waiting, numWaiting, numPreemptions, time: now }: EngineNow): void {
    const gaveWay = numPreemptions === 0 ? '' : ` ${plural(numPreemptions, 'sequence')} gave way to others so far.`;
    say(
      this.#about,
      (numWaiting === 0 ? 'Nobody waits.' : `${plural(numWaiting, 'sequence waits', 'sequences wait')} for a place.`) +
        gaveWay,
    );
    this.#table.hidden = numWaiting === 0;
    const first = waiting.slice(0, shown);
    this.#rows.show(first, keyOf, (row, sequence) => row.update(sequence, now));
    say(this.#more, numWaiting > first.length ? `and ${count(numWaiting - first.length)} more` : '');
  }
}
