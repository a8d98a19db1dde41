import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { RequestError } from '../base/errors.ts';
import { StopStrings } from './stop-strings.ts';

/** The first end of any stop string in the text, and the longest stop string ending there. */
function naive(text: string, stops: readonly string[]): { end: number; stop: string } | null {
  for (let end = 1; end <= text.length; end++) {
    const here = stops.filter((stop) => text.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length);
    if (here.length > 0) return { end, stop: here[0]! };
  }
  return null;
}

function feed(stops: readonly string[], deltas: readonly string[], includeStopInOutput = false) {
  const matcher = new StopStrings(stops, { includeStopInOutput });
  const parts: string[] = [];
  for (const delta of deltas) {
    const { text, stop } = matcher.push(delta);
    parts.push(text);
    if (stop !== null) return { parts, text: parts.join(''), stop };
  }
  parts.push(matcher.flush());
  return { parts, text: parts.join(''), stop: null };
}

test('agrees with naive search, however the text is cut', () => {
  // Two letters, so that stop strings overlap each other and themselves.
  const letters = fc.string({ unit: fc.constantFrom('a', 'b', '😀'), maxLength: 4 });
  const stops = fc.array(
    letters.filter((text) => text !== ''),
    { maxLength: 4 },
  );
  const deltas = fc.array(letters, { maxLength: 30 });
  const property = fc.property(stops, deltas, fc.boolean(), (list, parts, include) => {
    const whole = parts.join('');
    const match = naive(whole, list);
    const found = feed(list, parts, include);
    expect(found.stop).toBe(match?.stop ?? null);
    const upTo = match === null ? whole : whole.slice(0, include ? match.end : match.end - match.stop.length);
    expect(found.text).toBe(upTo);
  });
  fc.assert(property, { numRuns: 5000, seed: 3 });
});

test('holds back exactly what may still become a stop string', () => {
  expect(feed(['</s>', '<end>'], ['Hi <', '/', 'b> <e', 'n', 'd>x']).parts).toEqual(['Hi ', '', '</b> ', '', '']);
  expect(feed(['\n\n'], ['a\n', 'b\n', '\nc']).parts).toEqual(['a', '\nb', '']);
});

test('gives out what was held back when no stop string came', () => {
  expect(feed(['STOP'], ['ab', 'ST', 'O']).parts).toEqual(['ab', '', '', 'STO']);
});

test('says which stop string it was, and keeps it when asked to', () => {
  expect(feed(['User:', 'Bot:'], ['Hello\nBo', 't: no'])).toMatchObject({ text: 'Hello\n', stop: 'Bot:' });
  expect(feed(['Bot:'], ['Hello\nBo', 't: no'], true)).toMatchObject({ text: 'Hello\nBot:', stop: 'Bot:' });
});

test('drops everything after the match', () => {
  const matcher = new StopStrings(['x']);
  expect(matcher.push('axb')).toEqual({ text: 'a', stop: 'x' });
  expect(matcher.push('c')).toEqual({ text: '', stop: 'x' });
  expect(matcher.stop).toBe('x');
  expect(matcher.flush()).toBe('');
});

test('without stop strings everything passes at once', () => {
  expect(feed([], ['a', 'b']).parts).toEqual(['a', 'b', '']);
});

describe('time is linear', () => {
  test('a long stop string that almost matches, again and again, one character at a time', () => {
    const stop = `${'a'.repeat(2000)}b`;
    const matcher = new StopStrings([stop, 'aaab']);
    let text = '';
    for (let i = 0; i < 200_000; i++) text += matcher.push('a').text;
    expect(text.length).toBe(200_000 - 2000);
    expect(matcher.push('b').stop).toBe(stop);
  });
});

test.each([[['']], [['a', '']], [[3 as unknown as string]]])('%j is refused', (stops) => {
  expect(() => new StopStrings(stops)).toThrow(RequestError);
});
