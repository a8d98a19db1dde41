// The conversation: what was said, what is being said, and the line to say more.
import { h, say } from '../dom.ts';
import { count, plural, rate, time } from '../format.ts';
import { Controls } from './controls.ts';
import { showText } from './text.ts';
import { answer, type Message, type Progress } from './turn.ts';

const suggestions = [
  'Tell me a story about a fox and a drum.',
  'What is the capital of France?',
  'Write a short poem about rain.',
];

function summary(progress: Progress, ended: 'running' | 'done' | 'stopped'): string {
  const { numTokens, decodeMs, firstMs, promptTokens, cachedTokens, finish } = progress;
  if (firstMs === undefined) return 'waiting for the first token';
  const speed = numTokens > 1 && decodeMs > 0 ? `${rate(((numTokens - 1) * 1000) / decodeMs)} tok/s` : '';
  const prompt =
    promptTokens === undefined
      ? ''
      : `${count(promptTokens)} in${cachedTokens ? ` (${count(cachedTokens)} cached)` : ''}`;
  const how = ended === 'stopped' ? 'stopped by you' : finish === 'length' ? 'cut off at its limit' : '';
  return [prompt, plural(numTokens, 'token'), speed, `first after ${time(firstMs)}`, how]
    .filter((part) => part !== '')
    .join(' · ');
}

/** One message on the page. */
class Entry {
  readonly element: HTMLElement;
  readonly #text = h('div', { class: 'text' });
  readonly #thoughts = h('details', { class: 'thoughts', hidden: true }, h('summary', {}, 'Reasoning'));
  readonly #thoughtsText = h('div');
  readonly #meta = h('p', { class: 'meta' });
  readonly actions = h('div', { class: 'actions' });

  constructor(role: 'user' | 'assistant', speaker: string) {
    this.#thoughts.append(this.#thoughtsText);
    const parts = role === 'user' ? [] : [this.#meta, this.actions];
    this.element = h(
      'li',
      { class: role },
      h('span', { class: 'speaker' }, speaker),
      this.#thoughts,
      this.#text,
      ...parts,
    );
  }

  set text(text: string) {
    showText(this.#text, text);
  }

  show(progress: Progress, ended: 'running' | 'done' | 'stopped'): void {
    showText(this.#text, progress.content);
    this.#thoughts.hidden = progress.reasoning === '';
    if (progress.reasoning !== '') showText(this.#thoughtsText, progress.reasoning);
    say(this.#meta, summary(progress, ended));
    this.element.dataset.state = ended;
  }

  fail(message: string): void {
    this.element.dataset.state = 'failed';
    say(this.#meta, message);
  }
}

export class ChatView {
  readonly #controls = new Controls();
  readonly #list = h('ol', { class: 'transcript' });
  readonly #scroll: HTMLElement;
  readonly #input = h('textarea', { rows: 2, 'aria-label': 'Message', placeholder: 'Say something' });
  readonly #send = h('button', { type: 'submit', class: 'send' }, 'Send');
  readonly #stop = h('button', { type: 'button', class: 'send', hidden: true }, 'Stop');
  readonly #status = h('p', { class: 'status', role: 'status' });
  readonly #empty: HTMLElement;
  #model = '';
  #messages: Message[] = [];
  #entries: Entry[] = [];
  #running: AbortController | undefined;

  constructor(element: HTMLElement) {
    this.#empty = h(
      'div',
      { class: 'empty' },
      h('p', {}, 'Nothing has been said yet. Your request will appear in the batch as it runs.'),
    );
    for (const text of suggestions) {
      const button = h('button', { type: 'button', class: 'suggestion' }, text);
      button.addEventListener('click', () => void this.#say(text));
      this.#empty.append(button);
    }
    this.#scroll = h(
      'div',
      { class: 'scroll', tabindex: 0, role: 'log', 'aria-label': 'Conversation' },
      this.#empty,
      this.#list,
    );
    const form = h('form', { class: 'composer' }, this.#input, h('div', { class: 'buttons' }, this.#send, this.#stop));
    const clear = h('button', { type: 'button', class: 'quiet' }, 'New');
    clear.title = 'Begin a new conversation';
    clear.addEventListener('click', () => this.#clear());
    element.append(
      h('header', {}, h('h2', {}, 'Chat'), clear),
      this.#scroll,
      this.#status,
      form,
      this.#controls.element,
    );
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#say(this.#input.value.trim());
    });
    this.#input.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    });
    element.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') this.#running?.abort();
    });
    this.#stop.addEventListener('click', () => this.#running?.abort());
  }

  set model(name: string) {
    this.#model = name;
  }

  #clear(): void {
    this.#running?.abort();
    this.#messages = [];
    this.#entries = [];
    this.#list.replaceChildren();
    this.#empty.hidden = false;
    say(this.#status, '');
    this.#input.focus();
  }

  async #say(text: string): Promise<void> {
    if (text === '' || this.#running !== undefined) return;
    const read = this.#controls.read();
    if ('wrong' in read) return void say(this.#status, read.wrong);
    this.#input.value = '';
    this.#empty.hidden = true;
    this.#messages.push({ role: 'user', content: text });
    const entry = new Entry('user', 'You');
    entry.text = text;
    this.#add(entry);
    await this.#answer(read.fields);
  }

  async #again(): Promise<void> {
    if (this.#running !== undefined) return;
    const read = this.#controls.read();
    if ('wrong' in read) return void say(this.#status, read.wrong);
    if (this.#messages.at(-1)?.role === 'assistant') this.#messages.pop();
    this.#entries.pop()?.element.remove();
    await this.#answer(read.fields);
  }

  async #answer(fields: Readonly<Record<string, unknown>>): Promise<void> {
    const running = new AbortController();
    this.#running = running;
    this.#busy(true);
    for (const { actions } of this.#entries) actions.replaceChildren();
    const entry = new Entry('assistant', this.#model);
    this.#add(entry);
    const { system } = this.#controls;
    const messages = system === '' ? this.#messages : [{ role: 'system', content: system }, ...this.#messages];
    let newest: Progress | undefined;
    try {
      const body = { model: this.#model, messages, ...fields };
      newest = await answer(body, running.signal, (progress) => {
        newest = progress;
        this.#follow(() => entry.show(progress, 'running'));
      });
      this.#follow(() => entry.show(newest!, 'done'));
    } catch (error) {
      if (running.signal.aborted) {
        if (newest === undefined) entry.fail('stopped by you before the first token');
        else entry.show(newest, 'stopped');
      } else entry.fail(error instanceof Error ? error.message : String(error));
    }
    if (newest !== undefined) this.#messages.push({ role: 'assistant', content: newest.content });
    if (this.#running !== running) return;
    this.#running = undefined;
    this.#busy(false);
    this.#follow(() => this.#offer(entry, newest?.content));
  }

  #offer({ actions }: Entry, text: string | undefined): void {
    const again = h('button', { type: 'button', class: 'quiet' }, text === undefined ? 'Try again' : 'Regenerate');
    again.addEventListener('click', () => void this.#again());
    const copy = h('button', { type: 'button', class: 'quiet' }, 'Copy');
    copy.addEventListener('click', () => {
      void navigator.clipboard.writeText(text ?? '').then(() => say(copy, 'Copied'));
    });
    actions.replaceChildren(again, ...(text === undefined || !window.isSecureContext ? [] : [copy]));
  }

  #busy(busy: boolean): void {
    this.#send.hidden = busy;
    this.#stop.hidden = !busy;
    // Readers of screens hear that it begins and ends; each token would be too much.
    say(this.#status, busy ? 'Answering; Escape stops.' : '');
    this.#scroll.setAttribute('aria-busy', String(busy));
    if (!busy) this.#input.focus({ preventScroll: true });
  }

  #add(entry: Entry): void {
    this.#entries.push(entry);
    this.#list.append(entry.element);
    this.#scroll.scrollTop = this.#scroll.scrollHeight;
  }

  /** Stays at the end while it grows, unless the reader has scrolled up. */
  #follow(change: () => void): void {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroll;
    const atEnd = scrollHeight - scrollTop - clientHeight < 40;
    change();
    if (atEnd) this.#scroll.scrollTop = this.#scroll.scrollHeight;
  }
}
