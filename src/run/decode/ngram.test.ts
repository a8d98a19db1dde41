// What is proposed, and when it pays.
import { describe, expect, it } from 'vitest';
import { DraftCost, NGramDrafter } from './ngram.ts';

describe('NGramDrafter', () => {
  const history = (tokens: readonly number[]) => ({
    tokens: Int32Array.from(tokens),
    numTokens: tokens.length,
    promptLength: tokens.length,
  });

  it('proposes what followed before, more where it is right and cheap', () => {
    const cost = new DraftCost();
    const drafter = new NGramDrafter({ decodingType: 'ngram', maxDraftLen: 4 }, cost);
    const text = [1, 2, 3, 4, 5, 6, 7, 1, 2];
    expect(drafter.propose(history(text), 9)).toMatchObject({ from: 2 });
    for (let i = 0; i < 10; i++) drafter.learn(4, 4);
    expect(drafter.propose(history(text), 9)).toEqual({ from: 2, count: 4 });
  });

  it('proposes nothing after a token that is still to come', () => {
    const drafter = new NGramDrafter({ decodingType: 'ngram' });
    expect(drafter.propose(history([1, 2, 3, 1, 2, -1]), 9)).toBeUndefined();
  });

  it('pauses longer and longer where proposals are wrong or cost too much', () => {
    const cost = new DraftCost();
    for (let i = 0; i < 40; i++) cost.observe(1, 0, 1);
    for (let i = 0; i < 40; i++) cost.observe(1, 1, 2);
    expect(cost.share).toBeGreaterThan(0.9);
    const drafter = new NGramDrafter({ decodingType: 'ngram' }, cost);
    const text = [1, 2, 3, 1, 2, 3, 1, 2];
    let proposals = 0;
    for (let i = 0; i < 200; i++) {
      const draft = drafter.propose(history(text), 9);
      if (draft === undefined) continue;
      proposals++;
      drafter.learn(draft.count, 0);
    }
    expect(proposals).toBeLessThan(10);
    expect(drafter.pauses || proposals > 0).toBe(true);
  });
});
