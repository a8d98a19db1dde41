// An answer as the responses API writes it: items that open, grow and close, with an event for each change.
import type { ChatPiece, ChatRun } from '../chat-run.ts';
import { makeId } from '../http.ts';
import type { Item } from './responses-input.ts';

export type ResponseEvent = Readonly<Record<string, unknown>> & { readonly type: string };

type Kind = 'content' | 'reasoning';

interface OpenItem {
  readonly kind: Kind;
  readonly id: string;
  text: string;
}

function textPart(kind: Kind, text: string): Item {
  return kind === 'content'
    ? { type: 'output_text', text, annotations: [], logprobs: [] }
    : { type: 'reasoning_text', text };
}

function item({ kind, id, text }: OpenItem, status: string): Item {
  const content = text === '' && status === 'in_progress' ? [] : [textPart(kind, text)];
  return kind === 'content'
    ? { id, type: 'message', status, role: 'assistant', content }
    : { id, type: 'reasoning', status, summary: [], content };
}

/** Builds the output of one response. */
export class ResponseOutput {
  readonly items: Item[] = [];
  #open: OpenItem | undefined;
  finish: 'stop' | 'length' | 'tool_calls' | undefined;

  /** Events of the whole run, without those that frame it. */
  async *read(run: ChatRun): AsyncGenerator<ResponseEvent, void, undefined> {
    for await (const { pieces, finish } of run.events) {
      for (const piece of pieces) yield* this.#take(piece);
      this.finish = finish ?? this.finish;
    }
    // An answer without a word is still a message.
    if (this.items.length === 0 && this.#open === undefined) yield* this.#begin('content');
    yield* this.#end();
  }

  *#take(piece: ChatPiece): Generator<ResponseEvent> {
    if (piece.type === 'toolCall') {
      yield* this.#end();
      yield* this.#call(piece);
      return;
    }
    if (this.#open?.kind !== piece.type) {
      yield* this.#end();
      yield* this.#begin(piece.type);
    }
    const open = this.#open!;
    open.text += piece.text;
    yield { ...this.#place(open), type: `response.${this.#word(open)}.delta`, delta: piece.text, ...this.#extra(open) };
  }

  *#begin(kind: Kind): Generator<ResponseEvent> {
    const open: OpenItem = { kind, id: makeId(kind === 'content' ? 'msg_' : 'rs_'), text: '' };
    this.#open = open;
    yield { type: 'response.output_item.added', output_index: this.items.length, item: item(open, 'in_progress') };
    yield { ...this.#place(open), type: 'response.content_part.added', part: textPart(kind, '') };
  }

  *#end(): Generator<ResponseEvent> {
    const open = this.#open;
    if (open === undefined) return;
    this.#open = undefined;
    yield { ...this.#place(open), type: `response.${this.#word(open)}.done`, text: open.text, ...this.#extra(open) };
    yield { ...this.#place(open), type: 'response.content_part.done', part: textPart(open.kind, open.text) };
    const done = item(open, this.finish === 'length' ? 'incomplete' : 'completed');
    yield { type: 'response.output_item.done', output_index: this.items.length, item: done };
    this.items.push(done);
  }

  *#call(piece: ChatPiece & { type: 'toolCall' }): Generator<ResponseEvent> {
    const output_index = this.items.length;
    const made = { id: makeId('fc_'), type: 'function_call', call_id: piece.id, name: piece.name };
    const item_id = made.id;
    yield {
      type: 'response.output_item.added',
      output_index,
      item: { ...made, status: 'in_progress', arguments: '' },
    };
    yield { type: 'response.function_call_arguments.delta', item_id, output_index, delta: piece.arguments };
    yield {
      type: 'response.function_call_arguments.done',
      item_id,
      output_index,
      name: piece.name,
      arguments: piece.arguments,
    };
    const done = { ...made, status: 'completed', arguments: piece.arguments };
    yield { type: 'response.output_item.done', output_index, item: done };
    this.items.push(done);
  }

  #place({ id }: OpenItem): { item_id: string; output_index: number; content_index: number } {
    return { item_id: id, output_index: this.items.length, content_index: 0 };
  }

  #word({ kind }: OpenItem): string {
    return kind === 'content' ? 'output_text' : 'reasoning_text';
  }

  #extra({ kind }: OpenItem): object {
    return kind === 'content' ? { logprobs: [] } : {};
  }
}
