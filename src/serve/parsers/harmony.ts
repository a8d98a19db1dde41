// Answers in channels, as gpt-oss writes them (https://github.com/openai/harmony): `<|channel|>analysis<|message|>…<|end|>` is reasoning, `final` the answer, and a message `to=functions.NAME` a call.
import { type OutputParser, type Piece, parseJson, splitAt } from './pieces.ts';

const message = '<|message|>';
const ends = ['<|end|>', '<|return|>', '<|call|>', '<|start|>', '<|channel|>'];
const begins = ['<|channel|>', '<|start|>'];

type State =
  | { readonly in: 'before' }
  | { readonly in: 'header' }
  | { readonly in: 'body'; readonly type: 'content' | 'reasoning' }
  | { readonly in: 'call'; readonly name: string; body: string };

/** What a message is, from the text before its `<|message|>`. */
function readHeader(header: string): State {
  const channel = /<\|channel\|>\s*(\w+)/.exec(header)?.[1];
  const recipient = /\bto=([\w.-]+)/.exec(header)?.[1];
  if (recipient !== undefined) return { in: 'call', name: recipient.replace(/^functions\./, ''), body: '' };
  return { in: 'body', type: channel === 'analysis' ? 'reasoning' : 'content' };
}

/** Arguments that are no JSON are given as they are: the caller sees what the model wrote. */
function call(name: string, body: string): Piece {
  const parsed = parseJson(body);
  return { type: 'toolCall', name, arguments: parsed === undefined ? body || '{}' : JSON.stringify(parsed) };
}

/** Reads one answer. A template that ends in `<|start|>assistant` leaves the model before its first channel. */
export function harmonyParser(): OutputParser {
  let held = '';
  let state: State = { in: 'before' };
  const take = (text: string): Piece[] => {
    if (state.in === 'call') state.body += text;
    return state.in === 'body' && text !== '' ? [{ type: state.type, text }] : [];
  };
  const close = (): Piece[] => {
    const found: Piece[] = state.in === 'call' ? [call(state.name, state.body.trim())] : [];
    state = { in: 'before' };
    return found;
  };
  const push = (text: string): Piece[] => {
    held += text;
    const pieces: Piece[] = [];
    for (;;) {
      if (state.in === 'before') {
        const { before, marker, rest } = splitAt(held, begins);
        // Text outside of any channel is an answer without channels.
        if (before.trim() !== '') {
          state = { in: 'body', type: 'content' };
          continue;
        }
        held = marker === undefined ? before + rest : marker + rest;
        if (marker === undefined) return pieces;
        state = { in: 'header' };
      } else if (state.in === 'header') {
        const at = held.indexOf(message);
        if (at < 0) return pieces;
        state = readHeader(held.slice(0, at));
        held = held.slice(at + message.length);
      } else {
        const { before, marker, rest } = splitAt(held, ends);
        pieces.push(...take(before));
        held = marker !== undefined && begins.includes(marker) ? marker + rest : rest;
        if (marker === undefined) return pieces;
        pieces.push(...close());
      }
    }
  };
  return {
    push,
    end: () => {
      const rest = held;
      held = '';
      // A header that was cut off is nobody's text; a call that was is given as far as it goes.
      return [...(state.in === 'header' ? [] : take(rest)), ...close()];
    },
  };
}
