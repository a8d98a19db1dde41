import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlockManager } from './block-manager.ts';
import { BlockTable } from './block-table.ts';

describe('BlockManager', () => {
  it('grows a table block by block and counts', () => {
    const blocks = new BlockManager({ numBlocks: 4, tokensPerBlock: 4 });
    const table = new BlockTable();
    expect(blocks.needed(table, 5)).toBe(2);
    blocks.extend(table, 5);
    expect([table.numBlocks, table.numTokens, blocks.room(table)]).toEqual([2, 5, 11]);
    blocks.extend(table, 8);
    expect(blocks.stats()).toMatchObject({
      usedNumBlocks: 2,
      freeNumBlocks: 2,
      maxNumBlocks: 4,
      tokensPerBlock: 4,
      allocNewBlocks: 2,
    });
    expect(() => blocks.extend(table, 17)).toThrow('5 free blocks for 17 tokens'.replace('5', '3'));
    blocks.free(table);
    expect(blocks.freeNumBlocks).toBe(4);
  });

  it('copies a shared last block for whoever writes first, and leaves it to the last', () => {
    const blocks = new BlockManager({ numBlocks: 8, tokensPerBlock: 4 });
    const first = new BlockTable();
    blocks.extend(first, 6);
    const second = blocks.fork(first);
    expect(blocks.usedNumBlocks).toBe(2);
    expect(blocks.needed(second, 7)).toBe(1);
    blocks.extend(second, 7);
    expect(blocks.takeCopies()).toEqual([
      { kind: 'device', from: Int32Array.of(first.ids[1]!), to: Int32Array.of(second.ids[1]!) },
    ]);
    expect(blocks.needed(first, 7)).toBe(0);
    blocks.extend(first, 7);
    expect(blocks.takeCopies()).toBeUndefined();
    expect(first.ids[0]).toBe(second.ids[0]);
  });

  it('hands out copies in an order in which a block may be copied from and then filled', () => {
    const blocks = new BlockManager({ numBlocks: 3, tokensPerBlock: 4 });
    const first = new BlockTable();
    blocks.extend(first, 3);
    const second = blocks.fork(first);
    blocks.extend(second, 4);
    blocks.free(first);
    expect(blocks.freeNumBlocks).toBe(2);
    const third = blocks.fork(second);
    blocks.extend(third, 5);
    const fourth = blocks.fork(second);
    blocks.free(second);
    expect(() => blocks.extend(fourth, 5)).not.toThrow();
    const copies = blocks.takeCopies()!;
    for (const { from, to } of copies)
      for (const [i, target] of to.entries())
        expect([...from.slice(i + 1), ...to.slice(i + 1), from[i]]).not.toContain(target);
  });

  it('takes blocks in the order in which they became free', () => {
    const blocks = new BlockManager({ numBlocks: 4, tokensPerBlock: 1 });
    const table = new BlockTable();
    blocks.extend(table, 3);
    blocks.free(table);
    blocks.extend(table, 4);
    expect([...table.ids.subarray(0, 4)]).toEqual([3, 2, 1, 0]);
  });

  it('never loses, doubles or overwrites a block (random events)', () => {
    const event = fc.record({
      what: fc.constantFrom('new', 'grow', 'grow', 'fork', 'free', 'copy'),
      which: fc.nat(),
      by: fc.integer({ min: 1, max: 9 }),
    });
    fc.assert(
      fc.property(fc.array(event, { minLength: 50, maxLength: 400 }), (events) => {
        const blocks = new BlockManager({ numBlocks: 20, tokensPerBlock: 3 });
        const tables: BlockTable[] = [];
        for (const { what, which, by } of events) {
          const table = tables[which % Math.max(1, tables.length)];
          if (what === 'new' || table === undefined) tables.push(new BlockTable());
          else if (what === 'grow') {
            const length = table.numTokens + Math.min(by, blocks.room(table));
            blocks.extend(table, length);
            // What is written now belongs to this table alone.
            if (table.numTokens % 3 !== 0)
              expect(blocks.references(table.block(table.numBlocks - 1))).toBeGreaterThan(0);
          } else if (what === 'fork') {
            blocks.takeCopies();
            tables.push(blocks.fork(table));
          } else if (what === 'free') {
            blocks.free(table);
            tables.splice(tables.indexOf(table), 1);
          } else blocks.takeCopies();
          const held = new Map<number, number>();
          for (const { ids, numBlocks } of tables)
            for (const id of ids.subarray(0, numBlocks)) held.set(id, (held.get(id) ?? 0) + 1);
          for (const [id, count] of held) expect(blocks.references(id as never)).toBe(count);
          expect(blocks.usedNumBlocks).toBeGreaterThanOrEqual(held.size);
        }
        for (const table of tables) blocks.free(table);
        blocks.takeCopies();
        expect(blocks.freeNumBlocks).toBe(20);
      }),
      { numRuns: 200 },
    );
  });
});
