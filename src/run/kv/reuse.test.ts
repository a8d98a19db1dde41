// What the cache finds again, keeps and gives up.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { CacheGroup } from '../session/batch.ts';
import { BlockKeys, blockHashes } from './block-keys.ts';
import { BlockManager, type BlockManagerOptions } from './block-manager.ts';
import { BlockTable } from './block-table.ts';
import { CacheLayout } from './layout.ts';
import type { Content } from './matching.ts';
import { checkRetention, type KvCacheRetentionConfig, retentionAt } from './retention.ts';

const size = 4;

class Cache {
  readonly blocks: BlockManager;

  constructor(numBlocks: number, options: Partial<BlockManagerOptions> = {}) {
    this.blocks = new BlockManager({ numBlocks, tokensPerBlock: size, ...options });
  }

  content(tokens: readonly number[], scope = '', config?: KvCacheRetentionConfig): Content {
    return {
      tokens: Int32Array.from(tokens),
      keys: new BlockKeys(scope, size),
      retention: (position) => retentionAt(config, position, tokens.length),
    };
  }

  /** Computes a sequence and gives it back; how many of its tokens came from the cache. */
  use(tokens: readonly number[], scope = '', config?: KvCacheRetentionConfig): number {
    const { table, content, found } = this.begin(tokens, scope, config);
    this.blocks.free(table, content);
    return found;
  }

  begin(tokens: readonly number[], scope = '', config?: KvCacheRetentionConfig) {
    const content = this.content(tokens, scope, config);
    const table = new BlockTable();
    const match = this.blocks.match(content, tokens.length - 1);
    this.blocks.attach(table, match, content, tokens.length);
    this.blocks.extend(table, tokens.length);
    this.blocks.takeCopies();
    return { table, content, found: match.numTokens };
  }
}

const count = (from: number, length: number) => Array.from({ length }, (_, i) => from + i);

describe('block reuse', () => {
  it('finds full blocks and parts of blocks, and counts', () => {
    const cache = new Cache(16);
    expect(cache.use(count(0, 10))).toBe(0);
    expect(cache.use(count(0, 10))).toBe(9);
    expect(cache.use([...count(0, 8), 99, 98])).toBe(8);
    expect(cache.use([...count(0, 6), 99, 98])).toBe(6);
    expect(cache.use(count(1, 10))).toBe(0);
    expect(cache.blocks.stats()).toMatchObject({
      reusedBlocks: 2 + 1 + 2 + 1 + 1,
      missedBlocks: 2 + 0 + 0 + 1 + 2,
      freeNumBlocks: 16,
    });
  });

  it('does not mix scopes, and does nothing when it is off', () => {
    const cache = new Cache(16);
    cache.use(count(0, 9), 'a');
    expect([cache.use(count(0, 9), 'b'), cache.use(count(0, 9)), cache.use(count(0, 9), 'a')]).toEqual([0, 0, 8]);
    const off = new Cache(16, { enableBlockReuse: false });
    off.use(count(0, 9));
    expect(off.use(count(0, 9))).toBe(0);
    const whole = new Cache(16, { enablePartialReuse: false });
    whole.use(count(0, 10));
    expect(whole.use(count(0, 10))).toBe(8);
  });

  it('shares blocks among those who run, goes over to a twin, and copies a part that another writes on', () => {
    const cache = new Cache(16);
    const first = cache.begin(count(0, 9));
    const twin = cache.begin(count(0, 9));
    expect(cache.blocks.usedNumBlocks).toBe(6);
    cache.blocks.commit(first.table, first.content, 9);
    cache.blocks.commit(twin.table, twin.content, 9);
    expect([...twin.table.ids.subarray(0, 2)]).toEqual([...first.table.ids.subarray(0, 2)]);
    expect(cache.blocks.usedNumBlocks).toBe(4);
    const third = cache.begin([...count(0, 6), 50]);
    expect(third.found).toBe(6);
    expect(third.table.ids[0]).toBe(first.table.ids[0]);
    expect(third.table.ids[1]).not.toBe(first.table.ids[1]);
  });

  it('takes a part over whole when nobody has it, and copies it else', () => {
    const cache = new Cache(16);
    cache.use(count(0, 6));
    const content = cache.content([...count(0, 6), 70, 71]);
    const table = new BlockTable();
    cache.blocks.attach(table, cache.blocks.match(content, 7), content, 8);
    cache.blocks.extend(table, 8);
    expect(cache.blocks.takeCopies()).toBeUndefined();
    cache.blocks.free(table, content);
    // Of the block now stored only three tokens are wanted.
    const other = cache.content([...count(0, 6), 70, 99, 98]);
    const second = new BlockTable();
    cache.blocks.attach(second, cache.blocks.match(other, 8), other, 9);
    expect(second.numTokens).toBe(7);
    expect(cache.blocks.takeCopies()?.[0]?.from).toEqual(Int32Array.of(table.ids[1]!));
  });

  it('gives up leaves first, the longest unused of them', () => {
    const cache = new Cache(4);
    cache.use(count(0, 8));
    cache.use(count(100, 8));
    const held = (from: number) => cache.blocks.match(cache.content(count(from, 8)), 8).numTokens;
    // The end of the first sequence is the leaf unused for longest: it goes, its beginning stays.
    expect(cache.use([...count(0, 4), 9])).toBe(4);
    expect([held(0), held(100)]).toEqual([4, 8]);
    cache.use([200]);
    expect([held(0), held(100)]).toEqual([4, 4]);
    cache.use([300]);
    expect([held(0), held(100)]).toEqual([4, 0]);
  });

  it('keeps what has priority, as long as it was said', () => {
    const config = (priority: number, durationMs?: number): KvCacheRetentionConfig => ({
      tokenRangeRetentionConfigs: [{ tokenStart: 0, priority, ...(durationMs === undefined ? {} : { durationMs }) }],
    });
    const cache = new Cache(4);
    cache.use(count(0, 8), '', config(90));
    cache.use(count(100, 8), '', config(10));
    cache.use(count(200, 5));
    expect(cache.use([...count(0, 8), 1])).toBe(8);
    const timed = new Cache(4);
    timed.blocks.advance(1000);
    timed.use(count(0, 8), '', config(90, 500));
    timed.use(count(100, 8));
    timed.blocks.advance(1499);
    timed.use(count(200, 4));
    expect(timed.blocks.match(timed.content(count(0, 8)), 8).numTokens).toBe(8);
    timed.blocks.advance(1500);
    timed.use(count(300, 8));
    expect(timed.blocks.match(timed.content(count(0, 8)), 8).numTokens).toBeLessThan(8);
  });

  it('tells routers what it holds, in hashes that they can compute', () => {
    const cache = new Cache(3, { eventBufferMaxSize: 100 });
    const low: KvCacheRetentionConfig = { tokenRangeRetentionConfigs: [{ tokenStart: 0, priority: 20 }] };
    cache.use(count(0, 8));
    cache.use(count(0, 8), '', low);
    cache.use(count(50, 8));
    const [first, second] = blockHashes(count(0, 8), size);
    const [third, fourth] = blockHashes(count(50, 8), size);
    const stored = (blockHash: number, from: number, priority = 35) => ({
      blockHash,
      tokenIds: count(from, 4),
      cacheLevel: 0,
      priority,
    });
    const events = cache.blocks.takeEvents();
    expect(events.map(({ eventId }) => eventId)).toEqual(events.map((_, i) => i));
    const data = events.map((event) => event.data);
    expect(data[0]).toEqual({ type: 'created', numBlocksPerCacheLevel: [3] });
    expect(data[1]).toEqual({ type: 'stored', parentHash: null, blocks: [stored(first!, 0), stored(second!, 4)] });
    expect(data).toContainEqual({ type: 'updated', blockHash: first, priority: { oldValue: 35, newValue: 20 } });
    expect(data.some((event) => event.type === 'removed' && event.blockHashes.includes(second!))).toBe(true);
    expect(data.at(-1)).toEqual({
      type: 'stored',
      parentHash: null,
      blocks: [stored(third!, 50), stored(fourth!, 54)],
    });
    expect(cache.blocks.takeEvents()).toEqual([]);
    expect(blockHashes(count(0, 8), size, 'salt')[0]).not.toBe(first);
  });

  it('refuses retentions that make no sense', () => {
    const refused: [KvCacheRetentionConfig, string][] = [
      [{ decodeRetentionPriority: 101 }, 'decodeRetentionPriority'],
      [{ decodeDurationMs: -1 }, 'decodeDurationMs'],
      [{ tokenRangeRetentionConfigs: [{ tokenStart: 0, priority: 1.5 }] }, '[0].priority'],
      [{ tokenRangeRetentionConfigs: [{ tokenStart: 4, tokenEnd: 4, priority: 1 }] }, '[0].tokenEnd'],
      [
        {
          tokenRangeRetentionConfigs: [
            { tokenStart: 0, tokenEnd: 8, priority: 1 },
            { tokenStart: 7, priority: 1 },
          ],
        },
        '[1].tokenStart',
      ],
    ];
    for (const [config, where] of refused) expect(() => checkRetention(config)).toThrow(where);
  });
});

interface Running {
  readonly table: BlockTable;
  readonly tokens: number[];
  readonly keys: BlockKeys;
  readonly scope: string;
  /** Tokens at its last slide: what it sees from there on must stay. */
  settled: number;
}

const layouts: readonly (readonly CacheGroup[])[] = [
  [{}],
  [{}],
  [{ window: 5 }],
  [{ window: 4 }, {}],
  [{}, { window: 7, sinkTokens: 2 }],
  [{ window: 4 }, { window: 9 }],
  [{}, {}, { window: 6 }],
];

describe('block reuse under random events', () => {
  it('loses no block, overwrites nothing that is shared or known, and finds only what is there', () => {
    let numEvents = 0;
    let found = 0;
    let moved = 0;
    let slid = 0;
    const event = fc.record({
      what: fc.constantFrom('new', 'new', 'grow', 'grow', 'grow', 'fork', 'free', 'drop', 'cut', 'step', 'step'),
      which: fc.nat(),
      tokens: fc.array(fc.nat(1), { minLength: 1, maxLength: 14 }),
      scope: fc.constantFrom('', '', 'salt'),
      priority: fc.constantFrom(undefined, 10, 35, 90),
      durationMs: fc.constantFrom(undefined, 3, 20),
    });
    const property = fc.property(
      fc.array(event, { minLength: 300, maxLength: 500 }),
      fc.integer({ min: 6, max: 24 }),
      fc.constantFrom(...layouts),
      fc.constantFrom(0, 0, 5, 16, 60),
      fc.constantFrom(0, 20),
      (events, each, cacheGroups, numHostBlocks, secondaryOffloadMinPriority) => {
        const numGroups = cacheGroups.length;
        const numBlocks = each * numGroups;
        const layout = new CacheLayout({ tokensPerBlock: 3, cacheGroups }, 14);
        const options = { numHostBlocks, secondaryOffloadMinPriority, eventBufferMaxSize: 50 };
        const blocks = new BlockManager({ numBlocks, tokensPerBlock: 3, layout, ...options });
        const memory = new Int32Array(numBlocks * 3).fill(-1);
        const host = new Int32Array(numHostBlocks * 3).fill(-1);
        // Every group has its own keys and values of a token.
        const cell = (token: number, group: number): number => token + 10 * group;
        let running: Running[] = [];
        let now = 0;
        const content = ({ tokens, keys }: Running, event?: (typeof events)[number]): Content => ({
          tokens: Int32Array.from(tokens),
          keys,
          retention: () =>
            event?.priority === undefined ? undefined : { priority: event.priority, durationMs: event.durationMs },
        });
        const grow = (sequence: Running, tokens: readonly number[]): void => {
          const start = sequence.table.numTokens;
          const before = blocks.freeNumBlocks;
          blocks.slide(sequence.table);
          slid += blocks.freeNumBlocks - before;
          sequence.settled = start;
          const all = [...sequence.tokens.slice(0, start), ...tokens];
          if (blocks.needed(sequence.table, all.length) > blocks.freeNumBlocks) return;
          sequence.tokens.splice(0, sequence.tokens.length, ...all);
          blocks.extend(sequence.table, all.length);
          step();
          for (let i = start; i < all.length; i++) {
            for (let group = 0; group < numGroups; group++) {
              const block = sequence.table.block(Math.floor(i / 3), group);
              if (blocks.references(block) !== 1) throw new Error('written while shared');
              if (i % 3 < blocks.numKnown(block)) throw new Error('written though known');
              memory[block * 3 + (i % 3)] = cell(all[i]!, group);
            }
          }
          blocks.commit(sequence.table, content(sequence), all.length);
        };
        const step = (): void => {
          for (const { kind, from, to } of blocks.takeCopies() ?? []) {
            const source = kind === 'toDevice' ? host : memory;
            const target = kind === 'toHost' ? host : memory;
            if (kind !== 'device') moved += from.length;
            from.forEach((block, i) => {
              if (kind === 'device' && to.includes(block)) throw new Error('a target is a source');
              target.set(source.subarray(block * 3, block * 3 + 3), to[i]! * 3);
            });
          }
          blocks.advance(++now);
        };
        for (const event of events) {
          numEvents++;
          const sequence = running[event.which % Math.max(1, running.length)];
          if (event.what === 'new' || sequence === undefined) {
            const added: Running = {
              table: new BlockTable(numGroups),
              tokens: [...event.tokens],
              keys: new BlockKeys(event.scope, 3),
              scope: event.scope,
              settled: 0,
            };
            const match = blocks.match(content(added), event.tokens.length - 1);
            if (blocks.neededAfter(match, event.tokens.length) > blocks.freeNumBlocks) continue;
            blocks.attach(added.table, match, content(added, event), event.tokens.length);
            found += match.numTokens;
            added.settled = match.numTokens;
            running.push(added);
            grow(added, event.tokens.slice(match.numTokens));
          } else if (event.what === 'grow') grow(sequence, event.tokens);
          else if (event.what === 'fork') {
            running.push({
              ...sequence,
              tokens: [...sequence.tokens],
              keys: sequence.keys.clone(),
              table: blocks.fork(sequence.table),
            });
          } else if (event.what === 'cut') {
            const kept = Math.max(
              sequence.table.numStored * 3,
              sequence.settled,
              sequence.table.numTokens - event.tokens.length,
            );
            blocks.truncate(sequence.table, kept);
            sequence.keys.truncate(kept);
          } else if (event.what === 'step') step();
          else {
            if (event.what === 'free') blocks.free(sequence.table, content(sequence, event));
            else blocks.free(sequence.table);
            running = running.filter((other) => other !== sequence);
          }
          step();
          const held = new Map<number, number>();
          for (const { table, tokens, settled } of running) {
            for (const id of table.ids.subarray(0, table.numBlocks * numGroups))
              if (id >= 0) held.set(id, (held.get(id) ?? 0) + 1);
            cacheGroups.forEach(({ window, sinkTokens = 0 }, group) => {
              const first = window === undefined ? 0 : Math.max(0, settled - window + 1);
              for (let i = 0; i < table.numTokens; i++) {
                if (i < first && i >= sinkTokens) continue;
                if (memory[table.block(Math.floor(i / 3), group) * 3 + (i % 3)] !== cell(tokens[i]!, group))
                  throw new Error('content is lost');
              }
            });
          }
          for (const [id, references] of held)
            if (blocks.references(id as never) !== references) throw new Error('count');
          if (blocks.usedNumBlocks < held.size) throw new Error('a block is held and free');
        }
        step();
        for (const { table } of running) blocks.free(table);
        expect(blocks.freeNumBlocks).toBe(numBlocks);
        expect(blocks.numHeldInWindows).toBe(0);
        const all = new BlockTable(numGroups);
        blocks.extend(all, each * 3);
        expect(new Set(all.ids.subarray(0, numBlocks)).size).toBe(numBlocks);
        expect(blocks.stats().usedNumHostBlocks).toBeLessThanOrEqual(numHostBlocks);
      },
    );
    fc.assert(property, { numRuns: 400, seed: 4 });
    expect(numEvents).toBeGreaterThan(100_000);
    expect(found).toBeGreaterThan(10_000);
    expect(moved).toBeGreaterThan(1000);
    expect(slid).toBeGreaterThan(1000);
  });
});
