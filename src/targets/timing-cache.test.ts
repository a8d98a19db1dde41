// The timing cache: found by what was timed, kept beside what others add, readable, and refused when damaged.
import { mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { CompileError } from '../base/errors.ts';
import { TimingCache } from './timing-cache.ts';

const folder = mkdtempSync(join(tmpdir(), 'typert-timings-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const config = { kind: 'tile', bm: 64 };

test('a time is found by device, problem, size, config and source', () => {
  const file = join(folder, 'deep', 'timings.json');
  const cache = new TimingCache(file, 'A');
  cache.add('matmul n=8', 16, { us: 3.5, config, source: 'abc' });
  cache.save();
  const again = new TimingCache(file, 'A');
  expect(again.find('matmul n=8', 16, config, 'abc')).toBe(3.5);
  expect(again.find('matmul n=8', 32, config, 'abc')).toBeUndefined();
  expect(again.find('matmul n=8', 16, config, 'other')).toBeUndefined();
  expect(again.find('matmul n=8', 16, { ...config, bm: 32 }, 'abc')).toBeUndefined();
  expect(new TimingCache(file, 'B').find('matmul n=8', 16, config, 'abc')).toBeUndefined();
});

test('what is timed again replaces, the fastest stands first, a line a candidate', () => {
  const file = join(folder, 'again.json');
  const cache = new TimingCache(file, 'A');
  cache.add('p', 1, { us: 9, config, source: 'abc' });
  cache.add('p', 1, { us: 5, config: { kind: 'grid' }, source: 'abc' });
  cache.save();
  cache.add('p', 1, { us: 4, config, source: 'def' });
  cache.save();
  const lines = readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line.includes('"us"'));
  expect(lines.map((line) => JSON.parse(line.replace(/,$/, '')))).toEqual([
    { us: 4, config, source: 'def' },
    { us: 5, config: { kind: 'grid' }, source: 'abc' },
  ]);
  expect(readdirSync(folder).filter((name) => /lock|partial/.test(name))).toEqual([]);
});

test('two writers keep each other’s lines', () => {
  const file = join(folder, 'two.json');
  const [a, b] = [new TimingCache(file, 'A'), new TimingCache(file, 'A')];
  a.add('p', 1, { us: 1, config, source: 'x' });
  b.add('p', 2, { us: 2, config, source: 'x' });
  b.add('q', 1, { us: 3, config, source: 'x' });
  a.save();
  b.save();
  const read = new TimingCache(file, 'A');
  expect([read.at('p', 1), read.at('p', 2), read.at('q', 1)].map((timings) => timings[0]?.us)).toEqual([1, 2, 3]);
});

test('an edited line decides', () => {
  const file = join(folder, 'edited.json');
  const cache = new TimingCache(file, 'A');
  cache.add('p', 1, { us: 9, config, source: 'abc' });
  cache.save();
  writeFileSync(file, readFileSync(file, 'utf8').replace('"us":9', '"us":0.5'));
  expect(new TimingCache(file, 'A').find('p', 1, config, 'abc')).toBe(0.5);
});

test('a lock that a dead process left is taken over', () => {
  const file = join(folder, 'stale.json');
  writeFileSync(`${file}.lock`, '');
  utimesSync(`${file}.lock`, new Date(0), new Date(0));
  const cache = new TimingCache(file, 'A');
  cache.add('p', 1, { us: 1, config, source: 'x' });
  cache.save();
  expect(new TimingCache(file, 'A').at('p', 1)).toHaveLength(1);
});

test.each([
  ['no JSON', '{'],
  ['another file', '{"hello": 1}'],
  [
    'a time that is none',
    '{"format":"typert timings 1","devices":{"A":{"p":{"1":[{"us":"fast","config":{},"source":"x"}]}}}}',
  ],
])('%s is refused with what to do', (_name, text) => {
  const file = join(folder, 'damaged.json');
  writeFileSync(file, text);
  expect(() => new TimingCache(file, 'A')).toThrow(CompileError);
  expect(() => new TimingCache(file, 'A')).toThrow(
    /damaged\.json: timing cache cannot be read.*Repair or remove the file/,
  );
});

test('a file that cannot be written is an error with its name', () => {
  const cache = new TimingCache(join(folder, 'taken', 'timings.json'), 'A');
  writeFileSync(join(folder, 'taken'), '');
  cache.add('p', 1, { us: 1, config, source: 'x' });
  expect(() => cache.save()).toThrow(/cannot be written/);
});
