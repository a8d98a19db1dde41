// The engine as it runs: a stream of events from the server, drawn as they come.
import type { LiveEvent } from '../../src/serve/dashboard/api.ts';
import { ApiError, ask, events, type ModelInfo } from '../api.ts';
import { h } from '../dom.ts';
import { onTheme } from '../theme.ts';
import { BlockMap } from './blocks.ts';
import { QueueView } from './queue.ts';
import { Series } from './series.ts';
import { StepView } from './step.ts';
import { Strips } from './strips.ts';

/** What the rest of the page is told. */
export interface LiveListener {
  /** `undefined`: all is well. */
  notice(text: string | undefined, kind: 'wait' | 'error'): void;
  state(state: string, running: number): void;
}

export class LiveView {
  readonly #listener: LiveListener;
  readonly #strips = new Strips();
  readonly #blocks = new BlockMap();
  readonly #step = new StepView((key) => this.#blocks.choose(key));
  readonly #queue = new QueueView();
  #series = new Series();
  #limits = { maxBatchSize: 0, maxNumTokens: 0 };
  #newest: Extract<LiveEvent, { state: 'ready' }> | undefined;
  #watching = new AbortController();

  constructor(element: HTMLElement, listener: LiveListener) {
    this.#listener = listener;
    element.append(
      this.#strips.element,
      h('div', { class: 'halves' }, this.#step.element, h('div', {}, this.#blocks.element, this.#queue.element)),
    );
    const redraw = (): void => this.#draw();
    onTheme(redraw);
    new ResizeObserver(redraw).observe(element);
  }

  /** Watches a model from now on. */
  watch(model: ModelInfo): void {
    this.#watching.abort();
    this.#watching = new AbortController();
    this.#series = new Series();
    this.#newest = undefined;
    if (model.limits !== undefined) this.#limits = model.limits;
    this.#step.model = model.name;
    void this.#run(model.name, this.#watching.signal);
  }

  async #run(model: string, signal: AbortSignal): Promise<void> {
    for (let failures = 0; !signal.aborted; failures++) {
      try {
        const path = `/v1/typert/live?model=${encodeURIComponent(model)}&interval=250`;
        for await (const data of events(await ask(path, { signal }))) {
          failures = 0;
          if (document.hidden) this.#skip(JSON.parse(data) as LiveEvent);
          else this.#take(JSON.parse(data) as LiveEvent);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ApiError && error.status >= 400 && error.status < 500) {
          this.#listener.notice(error.message, 'error');
          return;
        }
      }
      if (signal.aborted) return;
      const seconds = Math.min(30, 2 ** failures);
      this.#listener.state('gone', 0);
      this.#listener.notice(
        `The server does not answer. What you see is how things were; the next try is in ${seconds} s.`,
        'error',
      );
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
  }

  /** Nobody sees the page: the numbers are kept, nothing is drawn. */
  #skip(event: LiveEvent): void {
    if (event.state === 'ready') this.#series.take(event);
  }

  #take(event: LiveEvent): void {
    if (event.state !== 'ready') {
      const why = event.reason === undefined ? '' : ` ${event.reason}`;
      const text = {
        loading: `${event.model} is being loaded.`,
        idle: `${event.model} is not loaded.`,
        failed: `The engine of ${event.model} failed; it is being opened again.${why}`,
      }[event.state];
      this.#listener.state(event.state, 0);
      this.#listener.notice(text, event.state === 'loading' ? 'wait' : 'error');
      return;
    }
    this.#listener.notice(undefined, 'wait');
    this.#listener.state('ready', event.engine.running.length);
    this.#series.take(event);
    this.#newest = event;
    const busy = event.engine.running.length > 0 || event.engine.numWaiting > 0;
    this.#step.update(event.engine, this.#limits.maxNumTokens, busy);
    this.#blocks.update(event.engine);
    this.#queue.update(event.engine);
    this.#strips.draw(this.#series, this.#limits);
  }

  #draw(): void {
    this.#strips.draw(this.#series, this.#limits);
    if (this.#newest !== undefined) this.#blocks.draw();
  }
}
