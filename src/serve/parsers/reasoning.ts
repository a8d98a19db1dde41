// Reasoning apart from the answer, by model family: what stands between the markers is reasoning, and the answer begins behind them.
import { harmonyParser } from './harmony.ts';
import { type OutputParser, type Piece, splitAt } from './pieces.ts';

/** Reasoning between two markers, or in a channel of its own. */
export type ReasoningFamily = MarkedReasoning | { readonly kind: 'channels' };

export interface MarkedReasoning {
  readonly kind: 'markers';
  readonly open: string;
  readonly close: string;
  /** The model reasons from its first token on without writing the opening marker. */
  readonly startsInside: boolean;
}

/** By the names that TensorRT-LLM's `--reasoning_parser` uses. */
export const reasoningFamilies: Readonly<Record<string, ReasoningFamily>> = {
  'deepseek-r1': { kind: 'markers', open: '<think>', close: '</think>', startsInside: true },
  qwen3: { kind: 'markers', open: '<think>', close: '</think>', startsInside: false },
  'gpt-oss': { kind: 'channels' },
};

/** `prompt` is the rendered prompt: a template that has written the opening marker leaves the model inside. */
export function reasoningParser(family: ReasoningFamily, prompt: string | null, inner: OutputParser): OutputParser {
  if (family.kind === 'channels') return harmonyParser();
  const { open, close } = family;
  const opened = prompt?.trimEnd().endsWith(open) ?? false;
  // A template may also write an empty thought to keep the model from thinking.
  const closed = prompt?.trimEnd().endsWith(close) ?? false;
  let state: 'before' | 'inside' | 'after' = closed ? 'after' : opened || family.startsInside ? 'inside' : 'before';
  let held = '';
  let fresh = true;
  const reasoning = (text: string): Piece[] => {
    const trimmed = fresh ? text.replace(/^\n+/, '') : text;
    if (trimmed === '') return [];
    fresh = false;
    return [{ type: 'reasoning', text: trimmed }];
  };
  const content = (text: string): Piece[] => {
    const trimmed = fresh && state === 'after' ? text.replace(/^\n+/, '') : text;
    if (trimmed !== '') fresh = false;
    return trimmed === '' ? [] : inner.push(trimmed);
  };
  const push = (text: string): Piece[] => {
    held += text;
    const pieces: Piece[] = [];
    if (state === 'before') {
      const { before, marker, rest } = splitAt(held, [open]);
      held = rest;
      if (marker === undefined) return [...pieces, ...content(before)];
      if (before.trim() !== '') pieces.push(...content(before));
      [state, fresh] = ['inside', true];
    }
    if (state === 'inside') {
      // A model that was opened by its template may open itself once more.
      if (fresh && held.trimStart().startsWith(open)) held = held.trimStart().slice(open.length);
      const { before, marker, rest } = splitAt(held, fresh ? [close, open] : [close]);
      held = rest;
      pieces.push(...reasoning(before));
      if (marker === undefined || marker === open) return pieces;
      [state, fresh] = ['after', true];
    }
    const rest = held;
    held = '';
    return [...pieces, ...content(rest)];
  };
  return {
    push,
    end: () => {
      const rest = held;
      held = '';
      return [...(state === 'inside' ? reasoning(rest) : content(rest)), ...inner.end()];
    },
  };
}
