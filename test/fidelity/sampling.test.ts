// Logits processing against Hugging Face transformers' processors and warpers, on stored rows (scripts/make-sampling-references.py).
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { filteredDistribution } from '../../src/kernels/sample/reference.ts';
import { createLogitsProcessors } from '../../src/run/decode/logits.ts';
import { resolveSamplingParams } from '../../src/run/decode/resolve.ts';
import type { SamplingParams } from '../../src/run/decode/sampling-params.ts';
import { goldenPath } from '../support/golden.ts';

interface Case {
  readonly params: Omit<SamplingParams, 'embeddingBias'> & { readonly embeddingBias?: [number, number][] };
  readonly promptLength: number;
  readonly tokens: number[];
  readonly logits: number[];
  /** null: -Infinity. */
  readonly processed: (number | null)[];
  readonly probabilities?: number[];
}

const { cases } = JSON.parse(readFileSync(`${goldenPath('sampling')}/processors.json`, 'utf8')) as { cases: Case[] };

describe('logits processing', () => {
  test('has its reference cases', () => {
    expect(cases).toHaveLength(84);
    const fields = new Set(cases.flatMap(({ params }) => Object.keys(params)));
    const wanted = 'embeddingBias repetitionPenalty noRepeatNgramSize badWords minTokens temperature topK topP minP';
    expect([...fields]).toEqual(expect.arrayContaining(wanted.split(' ')));
  });

  test.each(cases.map((each, i) => [`${i}: ${Object.keys(each.params).join(', ')}`, each] as const))(
    '%s',
    (_, each) => {
      const { embeddingBias, ...rest } = each.params;
      const params = resolveSamplingParams(
        { ...rest, ...(embeddingBias === undefined ? {} : { embeddingBias: new Map(embeddingBias) }) },
        each.logits.length,
      );
      const row = Float32Array.from(each.logits);
      const tokens = Int32Array.from(each.tokens);
      for (const process of createLogitsProcessors(params))
        process(row, { tokens, numTokens: tokens.length, promptLength: each.promptLength });
      each.processed.forEach((value, token) => {
        if (value === null) expect(row[token]).toBe(Number.NEGATIVE_INFINITY);
        else expect(row[token]).toBeCloseTo(value, 5);
      });
      if (each.probabilities === undefined) return;
      const distribution = filteredDistribution(row, params);
      each.probabilities.forEach((value, token) => {
        expect(distribution[token]).toBeCloseTo(value, 6);
        expect(distribution[token] === 0).toBe(value === 0);
      });
    },
  );
});
