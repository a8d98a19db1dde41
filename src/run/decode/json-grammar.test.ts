import fc from 'fast-check';
import { expect, it } from 'vitest';
import { integerRules, jsonGrammar } from './json-grammar.ts';
import { loadXGrammar } from './xgrammar.ts';

const { Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo } = loadXGrammar(() => {});
const hex = (byte: number): string => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
const vocab = ['<eos>', ...Array.from({ length: 256 }, (_, byte) => hex(byte))];

/** Whether a grammar takes the whole of these bytes. */
async function matcherOf(grammar: string): Promise<(bytes: Iterable<number>) => boolean> {
  const info = await TokenizerInfo.createTokenizerInfo(vocab, 'byte_fallback', false, vocab.length, [0]);
  const compiler = await GrammarCompiler.createGrammarCompiler(info);
  const matcher = await GrammarMatcher.createGrammarMatcher(await compiler.compileGrammar(grammar), [0]);
  return (bytes) => {
    matcher.reset();
    for (const byte of bytes) if (!matcher.acceptToken(byte + 1)) return false;
    return matcher.acceptToken(0);
  };
}

async function takes(schema: unknown): Promise<(text: string | readonly number[]) => boolean> {
  const matches = await matcherOf(await jsonGrammar(Grammar, JSON.stringify(schema), 2));
  return (text) => matches(typeof text === 'string' ? Buffer.from(text) : text);
}

it('ranges are those of arithmetic', async () => {
  const bound = fc.option(fc.bigInt({ min: -1300n, max: 1300n }), { nil: undefined });
  await fc.assert(
    fc.asyncProperty(bound, bound, async (a, b) => {
      const [low, high] = a !== undefined && b !== undefined && a > b ? [b, a] : [a, b];
      const matches = await matcherOf(integerRules('root', low, high));
      for (const value of [-10001n, -1301n, -100n, -10n, -9n, -1n, 0n, 1n, 9n, 10n, 99n, 100n, 1301n, 20000n].concat(
        [low ?? 0n, high ?? 0n].flatMap((edge) => [-11n, -10n, -1n, 0n, 1n, 9n, 10n, 100n].map((by) => edge + by)),
      ))
        expect(matches(Buffer.from(String(value))), `${value} in ${low} to ${high}`).toBe(
          (low === undefined || value >= low) && (high === undefined || value <= high),
        );
      expect(matches(Buffer.from('01'))).toBe(false);
      expect(matches(Buffer.from('-0'))).toBe(false);
    }),
    { numRuns: 60 },
  );
}, 60_000);

it('bounded integers of a schema, wherever they stand', async () => {
  const age = { type: 'integer', minimum: 0, maximum: 120 };
  const person = {
    type: 'object',
    properties: {
      age,
      more: { type: 'array', items: { $ref: '#/$defs/small' } },
      gap: { type: ['integer', 'null'], exclusiveMinimum: 7 },
    },
    required: ['age', 'more', 'gap'],
    additionalProperties: false,
    $defs: { small: { type: 'integer', maximum: 3, minimum: -3 } },
  };
  const ok = await takes(person);
  expect(ok('{"age": 120, "more": [-3, 3], "gap": 8}')).toBe(true);
  expect(ok('{"age": 0, "more": [], "gap": null}')).toBe(true);
  for (const wrong of [
    '{"age": 121, "more": [], "gap": null}',
    '{"age": 1, "more": [4], "gap": null}',
    '{"age": 1, "more": [], "gap": 7}',
  ])
    expect(ok(wrong), wrong).toBe(false);
  // What only looks like a schema is a value.
  const fixed = await takes({ const: { type: 'integer', minimum: 5 } });
  expect(fixed('{"type":"integer","minimum":5}')).toBe(true);
});

it('texts hold characters that JSON lets stand', async () => {
  for (const schema of [{ type: 'string', maxLength: 2 }, { type: 'string' }]) {
    const ok = await takes(schema);
    for (const text of ['""', '"a"', '"é"', '"한"', '"😀"', '"\u007f"']) expect(ok(text), text).toBe(true);
    for (const text of ['"\u0001"', '"\t"', '"\n"']) expect(ok(text), JSON.stringify(text)).toBe(false);
  }
  expect((await takes({ type: 'string', maxLength: 2 }))('"abc"')).toBe(false);
});
