// What is proposed, and when it pays.
import { describe, expect, it } from 'vitest';
import { DraftCost, DraftRecord, NGramDrafter } from './ngram.ts';

describe('NGramDrafter', () => {
  const history = (tokens: readonly number[]) => ({
    tokens: Int32Array.from(tokens),
    numTokens: tokens.length,
    promptLength: tokens.length,
  });

  it('proposes what followed before, more where it is right and cheap', () => {
    const drafter = new NGramDrafter({ decodingType: 'ngram', maxDraftLen: 4 });
    const text = [1, 2, 3, 4, 5, 6, 7, 1, 2];
    expect(drafter.propose(history(text), 9)?.[0]).toBe(3);
    for (let i = 0; i < 10; i++) drafter.learn(4, 4);
    expect(drafter.propose(history(text), 9)).toEqual([3, 4, 5, 6]);
    expect(drafter.propose(history(text), 3)).toEqual([3, 4, 5]);
  });

  it('goes on into its own proposal where a text runs in circles', () => {
    const drafter = new NGramDrafter({ decodingType: 'ngram', maxDraftLen: 7 });
    drafter.propose(history([9, 8, 9, 8, 9, 8]), 9);
    for (let i = 0; i < 10; i++) drafter.learn(7, 7);
    expect(drafter.propose(history([9, 8, 9, 8, 9, 8]), 9)).toEqual([9, 8, 9, 8, 9, 8, 9]);
    expect(drafter.propose(history([9, 8, 9, 8, 9, 8, 7, 7, 7]), 4)).toEqual([7, 7, 7]);
  });

  it('knows what steps cost by their sizes, and guesses those it has not seen', () => {
    const cost = new DraftCost();
    expect(cost.ratio(1, 5)).toBeCloseTo(1.5);
    for (let i = 0; i < 30; i++) {
      cost.observe(1, 10);
      cost.observe(2, 11);
      cost.observe(5, 20);
    }
    expect(cost.ratio(1, 1)).toBeCloseTo(1.1);
    expect(cost.ratio(1, 4)).toBeCloseTo(2);
    expect(cost.ratio(1, 3)).toBeCloseTo(1.7);
    expect(cost.ratio(1, 9)).toBeCloseTo(3.25);
    for (let i = 0; i < 99; i++) cost.observe(64, 40);
    expect(cost.ratio(64, 1)).toBeCloseTo(1.1);
    for (let i = 0; i < 99; i++) cost.observe(128, 60);
    expect(cost.ratio(64, 1)).toBeCloseTo(1.5);
  });

  it('proposes nothing after a token that is still to come', () => {
    const drafter = new NGramDrafter({ decodingType: 'ngram' });
    expect(drafter.propose(history([1, 2, 3, 1, 2, -1]), 9)).toBeUndefined();
  });

  it('pauses longer and longer where proposals are wrong or cost too much', () => {
    const record = new DraftRecord();
    const { cost } = record;
    for (let i = 0; i < 40; i++) cost.observe(1, 1);
    for (let i = 0; i < 40; i++) cost.observe(2, 2);
    expect(cost.ratio(1, 1)).toBeGreaterThan(1.9);
    const drafter = new NGramDrafter({ decodingType: 'ngram' }, record);
    const text = [1, 2, 3, 1, 2, 3, 1, 2];
    let proposals = 0;
    for (let i = 0; i < 200; i++) {
      const draft = drafter.propose(history(text), 9);
      if (draft === undefined) continue;
      proposals++;
      drafter.learn(draft.length, 0);
    }
    expect(proposals).toBeLessThan(10);
    expect(proposals).toBeGreaterThan(2);
    // The next text begins with what this one taught.
    const next = new NGramDrafter({ decodingType: 'ngram' }, record);
    const first = Array.from({ length: 12 }, () => next.propose(history(text), 9)?.length ?? 0);
    expect(first).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
  });
});
