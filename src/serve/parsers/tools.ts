// Tool calls in the text of an answer, by model family. A call is given out when it is complete and valid; text that only looked like one is given back as text.
import { endOfJson, type OutputParser, type Piece, parseJson, plain, splitAt, toToolCall } from './pieces.ts';

export interface ToolFamily {
  /** A token whose presence in the vocabulary tells the family. */
  readonly token: string;
  /** The markers are special tokens: they must not be left out of the text. */
  readonly needsSpecialTokens: boolean;
  /** How call ids look: some templates accept nothing else. */
  readonly makeId: () => string;
  readonly create: () => OutputParser;
}

function text(value: string): Piece[] {
  return plain.push(value);
}

/** `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as Hermes and Qwen write it. */
function hermes(): OutputParser {
  const [open, close] = ['<tool_call>', '</tool_call>'];
  let held = '';
  let inside = false;
  let called = false;
  const call = (body: string, closed: boolean): Piece[] => {
    const found = toToolCall(parseJson(body.trim()));
    if (found !== undefined) called = true;
    return found === undefined ? text(open + body + (closed ? close : '')) : [found];
  };
  return {
    push: (more) => {
      held += more;
      const pieces: Piece[] = [];
      for (;;) {
        const { before, marker, rest } = splitAt(held, [inside ? close : open]);
        if (inside && marker === undefined) return pieces;
        // Blank lines around calls belong to neither, so blanks wait for what follows them.
        const shown = before.trimEnd();
        if (inside) pieces.push(...call(before, true));
        else pieces.push(...text(shown));
        held = marker === undefined ? before.slice(shown.length) + rest : rest;
        if (marker === undefined) return pieces;
        inside = !inside;
      }
    },
    end: () => {
      const rest = held;
      held = '';
      if (inside) return call(rest, false);
      return called && rest.trim() === '' ? [] : text(rest);
    },
  };
}

/** A whole answer of `{"name": …, "parameters": {…}}` objects, separated by `;`, with `<|python_tag|>` before them or not, as Llama 3 writes it. */
function llama3(): OutputParser {
  const tag = '<|python_tag|>';
  let held = '';
  let mode: 'open' | 'calls' | 'text' = 'open';
  return {
    push: (more) => {
      if (mode === 'text') return text(more);
      held += more;
      const start = held.trimStart();
      if (mode === 'open' && start !== '' && !tag.startsWith(start.slice(0, tag.length))) {
        if (start.startsWith('{')) mode = 'calls';
        else {
          mode = 'text';
          return text(held);
        }
      }
      return [];
    },
    end: () => {
      if (mode === 'text') return [];
      const source = held.trimStart().replace(tag, '');
      const calls: Piece[] = [];
      let at = 0;
      for (;;) {
        while (/[\s;,]/.test(source[at] ?? '')) at++;
        if (at >= source.length) break;
        const end = source[at] === '{' ? endOfJson(source, at) : undefined;
        const found = end === undefined ? undefined : toToolCall(parseJson(source.slice(at, end)));
        if (found === undefined) return text(held);
        calls.push(found);
        at = end!;
      }
      return calls.length > 0 ? calls : text(held);
    },
  };
}

/** `[TOOL_CALLS]` and a list of calls, or name and arguments one after the other, as Mistral's models write it. */
function mistral(): OutputParser {
  const marker = '[TOOL_CALLS]';
  let held = '';
  let inside = false;
  const single = (body: string): Piece | undefined => {
    const match = /^\s*([\w.-]+)\s*(?:\[CALL_ID\]\s*\w+\s*)?(?:\[ARGS\])?\s*(\{[\s\S]*)$/.exec(body);
    const end = match === null ? undefined : endOfJson(match[2]!, 0);
    if (match === null || end === undefined) return undefined;
    return toToolCall({ name: match[1], arguments: parseJson(match[2]!.slice(0, end)) ?? match[2]!.slice(0, end) });
  };
  return {
    push: (more) => {
      held += more;
      if (inside) return [];
      const { before, marker: found, rest } = splitAt(held, [marker]);
      held = rest;
      inside = found !== undefined;
      return text(before);
    },
    end: () => {
      if (!inside) return text(held);
      const body = held.trim();
      const list = body.startsWith('[') ? parseJson(body.slice(0, endOfJson(body, 0))) : undefined;
      const calls = Array.isArray(list) ? list.map(toToolCall) : body.split(marker).map(single);
      if (calls.length > 0 && calls.every((call) => call !== undefined)) return calls as Piece[];
      return text(marker + held);
    },
  };
}

const letters = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789';

function randomText(length: number): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => letters[byte % letters.length]).join('');
}

const usualId = (): string => `call_${randomText(24)}`;

/** By the names that servers use for `--tool-parser`. */
export const toolFamilies: Readonly<Record<string, ToolFamily>> = {
  hermes: { token: '<tool_call>', needsSpecialTokens: false, makeId: usualId, create: hermes },
  llama3: { token: '<|python_tag|>', needsSpecialTokens: false, makeId: usualId, create: llama3 },
  mistral: { token: '[TOOL_CALLS]', needsSpecialTokens: true, makeId: () => randomText(9), create: mistral },
};
