// Grammars on a real model: every text at temperature 1 is what its schema says, with steps spared and without. `npm run bench guided` does so a thousand times.
import { fileURLToPath } from 'node:url';
import { LLM, type LLMOptions } from 'typert';
import { expect, it } from 'vitest';
import { z } from 'zod';

const model = fileURLToPath(new URL('../../models/storyteller-7m', import.meta.url));
const text = z.string().max(16);
const schemas = [
  z.strictObject({ name: text, age: z.int().min(0).max(120), friends: z.array(text).max(2) }),
  z.strictObject({ animal: z.enum(['fox', 'duck', 'bear']), isHappy: z.boolean(), note: text.nullable() }),
];

async function say(count: number, options: LLMOptions) {
  const llm = await LLM.load(model, { maxSeqLen: 512, maxBatchSize: 8, ...options });
  await using _ = llm;
  const outputs = await llm.generate(
    Array.from({ length: count }, (_, i) => `A story about ${i}:`),
    Array.from({ length: count }, (_, i) => ({
      ...{ maxTokens: 300, temperature: 1, seed: i },
      guidedDecoding: { json: z.toJSONSchema(schemas[i % 2]!) as Record<string, unknown> },
    })),
  );
  const texts = outputs.map(({ outputs: [output] }, i) => {
    expect(output!.finishReason).toBe('stop');
    expect(() => schemas[i % 2]!.parse(JSON.parse(output!.text))).not.toThrow();
    return output!.text;
  });
  return { texts, stats: (await llm.statistics()).jumpAheadStats };
}

it('48 JSON-schema requests at temperature 1 are valid', async () => {
  const { texts, stats } = await say(48, {});
  expect(new Set(texts).size).toBeGreaterThan(40);
  expect(stats.numAcceptedTokens).toBeGreaterThan(100);
});

it('they say the same when nothing is computed ahead', async () => {
  const ahead = await say(6, { target: 'reference' });
  const oneByOne = await say(6, { target: 'reference', disableJumpAhead: true });
  expect(ahead.stats.numAcceptedTokens).toBeGreaterThan(10);
  expect(oneByOne.stats.numForcedTokens).toBe(0);
  expect(ahead.texts).toEqual(oneByOne.texts);
});
