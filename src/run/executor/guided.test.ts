// Guided decoding on a session whose tokens are as good as random: only the grammar makes sense of them.
import { describe, expect, it } from 'vitest';
import { FakeSession, type FakeSessionOptions } from '../../../test/support/fake-session.ts';
import { RequestError } from '../../base/errors.ts';
import type { GuidedDecodingConfig } from '../decode/guided.ts';
import type { GuidedDecodingParams, SamplingParams } from '../decode/sampling-params.ts';
import { connectInThread } from './connect.ts';
import { Executor } from './executor.ts';
import type { ExecutorOptions } from './protocol.ts';

const words = [
  '',
  '\u0001',
  ...'abcdefghijklmnopqrstuvwxyz',
  ...'{}[]":, .-0123456789',
  'true',
  'false',
  'null',
  '"na',
  'me"',
  '": ',
  '<f>',
  '</f>',
];
const end = 0;
const config: GuidedDecodingConfig = { encodedVocab: words, vocabType: 'raw', stopTokenIds: [end] };

async function open(options: Partial<ExecutorOptions> = {}, limits: FakeSessionOptions = {}) {
  const fake = new FakeSession({ vocabSize: words.length, maxSeqLen: 512, ...limits });
  const session = { engineDir: 'none', target: 'reference' } as const;
  return await Executor.create(
    { session, guidedDecodingConfig: config, ...options },
    connectInThread(async () => fake),
  );
}

async function say(executor: Executor, guidedDecoding: GuidedDecodingParams, params: SamplingParams = {}) {
  const samplingParams = { maxTokens: 400, temperature: 1, endId: end, guidedDecoding, ...params };
  const { outputs } = await executor.enqueue({ promptTokenIds: [1, 2, 3], samplingParams }).result();
  return outputs.map(({ tokenIds, finishReason }) => ({
    text: tokenIds.map((id) => words[id]).join(''),
    finishReason,
  }));
}

const schema = {
  type: 'object',
  properties: {
    name: { type: 'string', maxLength: 8 },
    size: { type: 'integer', minimum: 0, maximum: 999 },
    kind: { enum: ['a', 'b'] },
    tags: { type: 'array', items: { type: 'boolean' }, maxItems: 3 },
  },
  required: ['name', 'size', 'kind', 'tags'],
  additionalProperties: false,
};

describe('guided decoding', () => {
  it('keeps to a JSON schema, each request to its own, beside others', async () => {
    const executor = await open();
    await using _ = executor;
    const plain = executor.enqueue({ promptTokenIds: [1, 2, 3], samplingParams: { maxTokens: 50 } });
    const all = await Promise.all(
      Array.from({ length: 40 }, (_, seed) => say(executor, { json: schema }, { seed: 2 * seed, n: 2 })),
    );
    for (const { text, finishReason } of all.flat()) {
      expect(finishReason).toBe('stop');
      const value = JSON.parse(text) as { name: string; size: number; kind: string; tags: boolean[] };
      expect(Object.keys(value)).toEqual(['name', 'size', 'kind', 'tags']);
      expect([typeof value.name, Number.isInteger(value.size), Array.isArray(value.tags)]).toEqual([
        'string',
        true,
        true,
      ]);
      expect(['a', 'b']).toContain(value.kind);
    }
    expect(new Set(all.flat().map(({ text }) => text)).size).toBeGreaterThan(70);
    expect((await plain.result()).outputs[0]!.tokenIds).toHaveLength(50);
    expect((await executor.statistics()).kvCacheStats.usedNumBlocks).toBe(0);
  });

  it('keeps to expressions, grammars, any JSON and structural tags', async () => {
    const executor = await open();
    await using _ = executor;
    for (let seed = 0; seed < 10; seed++) {
      const [regex] = await say(executor, { regex: '[a-c]{3}-[0-9]{1,4}' }, { seed });
      expect(regex!.text).toMatch(/^[a-c]{3}-[0-9]{1,4}$/);
      const [grammar] = await say(executor, { grammar: 'root ::= "yes" | "no" | "may" "be"?' }, { seed });
      expect(grammar!.text).toMatch(/^(yes|no|may|maybe)$/);
      // The tokenizer's end ends the text even where the request ignores it.
      const [ignored] = await say(executor, { grammar: 'root ::= "ab"' }, { seed, ignoreEos: true });
      expect(ignored).toEqual({ text: 'ab', finishReason: 'stop' });
      const structuralTag = {
        type: 'structural_tag',
        format: {
          type: 'tag',
          begin: '<f>',
          content: { type: 'json_schema', json_schema: { type: 'boolean' } },
          end: '</f>',
        },
      };
      const [tagged] = await say(executor, { structuralTag }, { seed });
      expect(tagged!.text).toMatch(/^<f>(true|false)<\/f>$/);
      const [json] = await say(executor, { jsonObject: true }, { seed });
      if (json!.finishReason === 'stop') expect(() => JSON.parse(json!.text)).not.toThrow();
    }
  });

  it('computes at once what grammars leave no choice about, with the tokens that come one by one', async () => {
    const grammar = 'root ::= "first-" [a-c] "-then-name-and-size-" [0-9] ("-end-of-it" | "-false-end")';
    const requests = [{ grammar }, { json: schema }, { regex: 'abcdef[0-9]{2}ghijkl' }].flatMap((guided) =>
      [{ temperature: 1 }, { temperature: 0 }, { temperature: 1, logprobs: 2 }].flatMap((params) =>
        [1, 2, 3, 4].map(
          (seed) => [guided, { ...params, seed, maxTokens: 120, n: params.temperature === 1 ? 2 : 1 }] as const,
        ),
      ),
    );
    const run = async (options: Partial<ExecutorOptions>, limits: FakeSessionOptions) => {
      const executor = await open(options, limits);
      await using _ = executor;
      const all = await Promise.all(requests.map(async ([guided, params]) => await say(executor, guided, params)));
      const { jumpAheadStats, numIterations, specDecodingStats, numPreemptions } = await executor.statistics();
      return { all, jumpAheadStats, numIterations, specDecodingStats, numPreemptions };
    };
    const oneByOne = await run({ disableJumpAhead: true }, {});
    expect(oneByOne.jumpAheadStats).toEqual({ numForcedTokens: 0, numAcceptedTokens: 0, numJumps: 0 });
    const jumping = await run({}, {});
    expect(jumping.all).toEqual(oneByOne.all);
    const { numForcedTokens, numAcceptedTokens, numJumps } = jumping.jumpAheadStats;
    expect(numAcceptedTokens).toBeGreaterThan(2 * numJumps);
    expect(numForcedTokens).toBeGreaterThanOrEqual(numAcceptedTokens);
    expect(jumping.numIterations).toBeLessThan(oneByOne.numIterations * 0.8);
    expect(jumping.specDecodingStats.numDraftTokens).toBe(0);
    // Where blocks and rows are scarce as well.
    const tight = await run(
      { schedulerConfig: { capacitySchedulerPolicy: 'max_utilization' } },
      { numBlocks: 44, maxNumTokens: 16, maxNumLogits: 10 },
    );
    expect(tight.all).toEqual(oneByOne.all);
    expect(tight.numPreemptions).toBeGreaterThan(0);
  });

  it('ends a request alone whose grammar is none, with the reason', async () => {
    const executor = await open();
    await using _ = executor;
    const fine = say(executor, { json: schema }, { seed: 1 });
    const bad: [GuidedDecodingParams, string][] = [
      [{ grammar: 'root ::= (' }, 'not a grammar: EBNF parser error'],
      [{ json: '{"type":' }, 'guidedDecoding.json: not JSON'],
      [{ json: { type: 'nonsense' } }, 'not a grammar'],
      [{ regex: '[a-' }, 'not a grammar'],
    ];
    for (const [params, message] of bad) {
      await expect(say(executor, params)).rejects.toThrow(message);
      await expect(say(executor, params)).rejects.toBeInstanceOf(RequestError);
    }
    const [{ text } = { text: '' }] = await fine;
    expect(Object.keys(JSON.parse(text) as object)).toHaveLength(4);
    await expect(say(executor, { regex: 'ab' }, { badTokenIds: [2] })).rejects.toThrow('no token is left');
  });
});
