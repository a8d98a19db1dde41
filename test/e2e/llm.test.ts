// The LLM as a user has it: bundled model, stored continuations by Hugging Face transformers, streaming, stops, logits, cancellation, disposal.
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { LLM, openResources, RequestError, type RequestOutput, type SamplingParams, UsageError } from 'typert';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { goldenPath, readGolden } from '../support/golden.ts';
import { temporaryFolder } from '../support/temporary.ts';

const cacheDir = temporaryFolder();
const storyteller = fileURLToPath(new URL('../../models/storyteller-7m', import.meta.url));

interface StoredStory {
  readonly kind: 'chat' | 'text';
  readonly prompt: string;
  readonly prompt_token_ids: number[];
  readonly greedy_token_ids: number[];
}
const stories = JSON.parse(readFileSync(`${storyteller}/golden.json`, 'utf8')) as StoredStory[];

describe('storyteller-7m', () => {
  let llm: LLM;
  beforeAll(async () => {
    llm = await LLM.load(storyteller, {
      target: 'reference',
      dtype: 'float32',
      cacheDir,
      kvCacheConfig: { maxTokens: 4096 },
    });
  });
  afterAll(async () => {
    await llm?.[Symbol.asyncDispose]();
    expect(openResources()).toEqual({});
  });

  test('continues every stored prompt as transformers does, all at once', async () => {
    const inputs = stories.map(({ kind, prompt }) =>
      kind === 'chat' ? { messages: [{ role: 'user', content: prompt }] } : prompt,
    );
    const outputs = await llm.generate(
      inputs,
      stories.map(({ greedy_token_ids }) => ({ maxTokens: greedy_token_ids.length, temperature: 0 })),
    );
    outputs.forEach((output, i) => {
      expect(output.promptTokenIds).toEqual(stories[i]!.prompt_token_ids);
      expect(output.outputs[0]!.tokenIds).toEqual(stories[i]!.greedy_token_ids);
    });
  });

  test('streams the same text as it returns, never with a broken character', async () => {
    const params = { maxTokens: 60, temperature: 0.8, topP: 0.9, seed: 7 };
    let text = '';
    for await (const part of llm.generateAsync('Once upon a time', params)) {
      expect(part.textDelta).not.toContain('\ufffd');
      text += part.textDelta;
    }
    const whole = await llm.generate('Once upon a time', params);
    expect(text).toBe(whole.outputs[0]!.text);
    expect(text.length).toBeGreaterThan(50);
  });

  test('a stop string ends the text before it, a stop token and a length are told apart', async () => {
    const free = (await llm.generate('Once upon a time', { maxTokens: 40, temperature: 0 })).outputs[0]!;
    expect(free.finishReason).toBe('length');
    const word = free.text.split(' ')[6]!;
    const stopped = (await llm.generate('Once upon a time', { maxTokens: 40, temperature: 0, stop: [word] }))
      .outputs[0]!;
    expect(stopped).toMatchObject({
      finishReason: 'stop',
      stopReason: word,
      text: free.text.slice(0, free.text.indexOf(word)),
    });
    const kept = (
      await llm.generate('Once upon a time', {
        maxTokens: 40,
        temperature: 0,
        stop: word,
        includeStopStrInOutput: true,
      })
    ).outputs[0]!;
    expect(kept.text).toBe(stopped.text + word);
    const byToken = (
      await llm.generate('Once upon a time', { maxTokens: 40, temperature: 0, stopTokenIds: [free.tokenIds[10]!] })
    ).outputs[0]!;
    expect(byToken).toMatchObject({ finishReason: 'stop', stopReason: free.tokenIds[10] });
    expect(byToken.tokenIds.length).toBeLessThanOrEqual(10);
  });

  test('n sequences differ from each other and come again with the same seed', async () => {
    const params = { n: 3, temperature: 1, seed: 11, maxTokens: 24 };
    const [a, b] = await llm.generate(['The dragon', 'The dragon'], params);
    const texts = (output: RequestOutput) => output.outputs.map(({ text }) => text);
    expect(new Set(texts(a!)).size).toBe(3);
    expect(texts(a!)).toEqual(texts(b!));
    const alone = await llm.generate('The dragon', { ...params, n: 1 });
    expect(alone.outputs[0]!.text).toBe(a!.outputs[0]!.text);
  });

  test('gives log-probabilities and logits that fit together', async () => {
    const { outputs, contextLogits, promptLogprobs, promptTokenIds } = await llm.generate('Once upon a time', {
      maxTokens: 5,
      temperature: 0,
      logprobs: 3,
      promptLogprobs: 1,
      returnContextLogits: true,
      returnGenerationLogits: true,
    });
    const [output] = outputs;
    expect(contextLogits!.shape).toEqual([promptTokenIds.length, 4096]);
    expect(output!.generationLogits!.shape).toEqual([5, 4096]);
    expect(promptLogprobs).toHaveLength(promptTokenIds.length);
    let sum = 0;
    output!.tokenIds.forEach((token, i) => {
      const row = output!.generationLogits!.data.subarray(i * 4096, (i + 1) * 4096);
      const max = Math.max(...row);
      const norm = max + Math.log(row.reduce((total, logit) => total + Math.exp(logit - max), 0));
      const entry = output!.logprobs![i]!.get(token)!;
      expect(entry.logprob).toBeCloseTo(row[token]! - norm, 4);
      expect(entry.rank).toBe(1);
      sum += entry.logprob;
    });
    expect(output!.cumulativeLogprob).toBeCloseTo(sum, 4);
    // The last row of the prompt's logits is what the first token was chosen from.
    expect(contextLogits!.data.slice(-4096)).toEqual(output!.generationLogits!.data.slice(0, 4096));
  });

  test('an aborted request ends at once with the reason; others go on', async () => {
    const controller = new AbortController();
    const doomed = llm.generate('Once upon a time', { maxTokens: 300, ignoreEos: true }, { signal: controller.signal });
    const fine = llm.generate('A cat', { maxTokens: 8, temperature: 0 });
    setTimeout(() => controller.abort(new Error('changed my mind')), 100);
    await expect(doomed).rejects.toThrow('changed my mind');
    expect((await fine).outputs[0]!.tokenIds.length).toBeGreaterThan(0);
    for await (const part of llm.generateAsync('Leaving the loop cancels', { maxTokens: 300, ignoreEos: true })) {
      if (part.outputs[0]!.tokenIds.length > 2) break;
    }
    // A cancelled request gives its blocks back with the next step.
    await llm.generate('One', { maxTokens: 2 });
    const { kvCacheStats } = await llm.statistics();
    expect(kvCacheStats.usedNumBlocks).toBe(0);
  });

  const refused: readonly [SamplingParams, RegExp][] = [
    [{ temperature: Number.NaN }, /temperature.*NaN/],
    [{ temperature: -1 }, /temperature/],
    [{ topP: 1.5 }, /topP.*1\.5/],
    [{ topK: -2 }, /topK/],
    [{ minP: 2 }, /minP/],
    [{ maxTokens: 0 }, /maxTokens/],
    [{ n: 0 }, /samplingParams\.n/],
    [{ seed: -1 }, /seed/],
    [{ repetitionPenalty: 0 }, /repetitionPenalty/],
    [{ stopTokenIds: [999_999] }, /stopTokenIds.*4096/],
    [{ stop: [''] }, /stop/],
    [{ useBeamSearch: true, temperature: 0.5 }, /beam search does not sample/],
    [{ temprature: 1 } as SamplingParams, /temprature.*temperature/],
  ];
  test.each(refused)('refuses %o', async (params, message) => {
    const attempt = async () => await llm.generate('x', params);
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toBeInstanceOf(RequestError);
  });

  test('refuses prompts that cannot be served, with the numbers', async () => {
    await expect(async () => await llm.generate({ promptTokenIds: [1, 4096] })).rejects.toThrow(
      /promptTokenIds\[1\].*0 to 4095; got 4096/,
    );
    await expect(async () => await llm.generate({ promptTokenIds: new Array(600).fill(5) })).rejects.toThrow(
      /fewer than maxSeqLen = 512.*600 tokens/,
    );
    await expect(async () => await llm.generate('')).rejects.toThrow(/no tokens/);
    await expect(async () => await llm.generate({ messages: [] })).rejects.toThrow(/messages/);
  });

  test('refuses unknown options', async () => {
    await expect(LLM.load(storyteller, { maxBatchsize: 3 } as never)).rejects.toBeInstanceOf(UsageError);
    await expect(LLM.load(storyteller, { maxBatchsize: 3 } as never)).rejects.toThrow(/maxBatchSize/);
  });
});

test('a checkpoint without a tokenizer works from token ids', async () => {
  await using llm = await LLM.load(goldenPath('qwen3'), { target: 'reference', dtype: 'float32', cacheDir });
  expect(llm.tokenizer).toBeUndefined();
  const { prompts } = readGolden('qwen3');
  const outputs = await llm.generate(
    prompts.map(({ ids }) => ({ promptTokenIds: ids })),
    { maxTokens: prompts[0]!.greedy.length, ignoreEos: true },
  );
  expect(outputs.map(({ outputs: [only] }) => only!.tokenIds)).toEqual(prompts.map(({ greedy }) => greedy));
  expect(outputs[0]!.outputs[0]!.text).toBe('');
  await expect(async () => await llm.generate('text')).rejects.toThrow(/no tokenizer/);
});

test('narrow dtypes agree with float32 but for close calls', async () => {
  const { prompts } = readGolden('llama');
  for (const dtype of ['bfloat16', 'float16'] as const) {
    await using llm = await LLM.load(goldenPath('llama'), { target: 'reference', dtype, cacheDir });
    const [output] = await llm.generate([{ promptTokenIds: prompts[0]!.ids }], { maxTokens: 8, ignoreEos: true });
    expect(output!.outputs[0]!.tokenIds.slice(0, 4)).toEqual(prompts[0]!.greedy.slice(0, 4));
  }
});

const smolLM2 = fileURLToPath(new URL('../../.models/SmolLM2-135M-Instruct.Q4_1.gguf', import.meta.url));

test.skipIf(!existsSync(smolLM2))(
  'SmolLM2-135M-Instruct as Q4_1 GGUF knows the capital of France (skipped when .models/ does not hold it)',
  async () => {
    await using llm = await LLM.load(smolLM2, { target: 'reference', cacheDir, maxSeqLen: 512, maxBatchSize: 1 });
    const { outputs } = await llm.generate(
      { messages: [{ role: 'user', content: 'What is the capital of France?' }] },
      { maxTokens: 24, temperature: 0 },
    );
    expect(outputs[0]!.text).toContain('Paris');
    expect(outputs[0]!.finishReason).toBe('stop');
  },
);
