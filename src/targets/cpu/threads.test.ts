import { expect, test } from 'vitest';
import { parseCpuList, threadCpus } from './threads.ts';

test('parseCpuList', () => {
  expect(parseCpuList('0-2,5')).toEqual([0, 1, 2, 5]);
  expect(parseCpuList('7')).toEqual([7]);
  expect(parseCpuList('')).toEqual([]);
});

test('threadCpus gives as many as asked, pinned only where there are cores enough', () => {
  expect(threadCpus(1)).toHaveLength(1);
  expect(threadCpus().length).toBeGreaterThan(0);
  const many = threadCpus(4096);
  expect(many).toHaveLength(4096);
  expect(many.every((cpu) => cpu === -1)).toBe(true);
});
