// What the text of an answer is made of, and what finds it there while the text still comes.

/** A part of an answer. A tool call comes whole; the other two in pieces. */
export type Piece =
  | { readonly type: 'content'; readonly text: string }
  | { readonly type: 'reasoning'; readonly text: string }
  | { readonly type: 'toolCall'; readonly name: string; readonly arguments: string };

/** Reads one answer. What may still turn out to be the beginning of a marker is held back. */
export interface OutputParser {
  push(text: string): Piece[];
  /** The answer is over: gives what was held back. */
  end(): Piece[];
}

export const plain: OutputParser = {
  push: (text) => (text === '' ? [] : [{ type: 'content', text }]),
  end: () => [],
};

export interface Split {
  /** Certain to stand before any marker. */
  readonly before: string;
  readonly marker: string | undefined;
  /** What follows the marker; without one, what may be the beginning of one. */
  readonly rest: string;
}

/** Cuts `text` at the first of `markers`. */
export function splitAt(text: string, markers: readonly string[]): Split {
  let at = -1;
  let found: string | undefined;
  for (const marker of markers) {
    const place = text.indexOf(marker);
    if (place >= 0 && (at < 0 || place < at)) [at, found] = [place, marker];
  }
  if (found !== undefined) return { before: text.slice(0, at), marker: found, rest: text.slice(at + found.length) };
  const longest = Math.max(0, ...markers.map((marker) => marker.length - 1));
  for (let length = Math.min(longest, text.length); length > 0; length--) {
    const tail = text.slice(-length);
    if (markers.some((marker) => marker.length > length && marker.startsWith(tail)))
      return { before: text.slice(0, -length), marker: undefined, rest: tail };
  }
  return { before: text, marker: undefined, rest: '' };
}

/** Where the JSON value that begins at `from` ends; undefined when it is not complete. */
export function endOfJson(text: string, from: number): number | undefined {
  let depth = 0;
  let inString = false;
  for (let at = from; at < text.length; at++) {
    const char = text[at]!;
    if (inString) {
      if (char === '\\') at++;
      else if (char === '"') inString = false;
    } else if (char === '"') inString = true;
    else if (char === '{' || char === '[') depth++;
    else if (char === '}' || char === ']') {
      depth--;
      if (depth === 0) return at + 1;
    }
  }
  return undefined;
}

/** A call from `{ name, arguments | parameters }`; undefined when it is none. */
export function toToolCall(value: unknown): Piece | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { name, arguments: args, parameters } = value as Record<string, unknown>;
  if (typeof name !== 'string' || name === '') return undefined;
  const given = args ?? parameters ?? {};
  if (typeof given === 'string') return { type: 'toolCall', name, arguments: given };
  return typeof given === 'object' ? { type: 'toolCall', name, arguments: JSON.stringify(given) } : undefined;
}

export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
