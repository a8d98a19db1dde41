// Proves the one-way rule: base ← define ← kernels ← targets ← compile ← run ← llm ← serve ← cli (quantize stands beside llm, on run).
// Type-only imports may cross; values may not. Also: no import cycles of values, and no file that has outgrown its reader.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const src = fileURLToPath(new URL('../src', import.meta.url));
const order = ['base', 'define', 'kernels', 'targets', 'compile', 'run', 'llm', 'serve', 'cli'];
const beside: Readonly<Record<string, string>> = { quantize: 'llm' };
/** Tables and kernels may be long; everything else must be readable at a sitting. */
const tables = new Set(['define/graph/ops.ts']);
const longest = 400;

const files = readdirSync(src, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts') && !/\.(test|bench)\.ts$/.test(name))
  .map((name) => join(src, name));

interface Import {
  readonly from: string;
  readonly to: string;
}

/** Imports of values between files of src. */
function valueImports(file: string): Import[] {
  const text = readFileSync(file, 'utf8').replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
  const found: Import[] = [];
  for (const match of text.matchAll(/(?:^|\n)\s*(import|export)\s+(type\s+)?([^;'"]*?)from\s+['"](\.[^'"]+)['"]/g)) {
    const [, , typeOnly, clause, path] = match;
    const names = /\{([^}]*)\}/
      .exec(clause!)?.[1]
      ?.split(',')
      .map((name) => name.trim())
      .filter(Boolean);
    const allTypes =
      names !== undefined &&
      names.length > 0 &&
      names.every((name) => name.startsWith('type ')) &&
      !/^\s*\w+\s*,/.test(clause!);
    if (typeOnly === undefined && !allTypes) found.push({ from: file, to: resolve(dirname(file), path!) });
  }
  for (const match of text.matchAll(/(?:^|\n)\s*import\s+['"](\.[^'"]+)['"]|import\(\s*['"](\.[^'"]+)['"]\s*\)/g)) {
    found.push({ from: file, to: resolve(dirname(file), (match[1] ?? match[2])!) });
  }
  return found.filter(({ to }) => to.startsWith(src) && to.endsWith('.ts'));
}

const imports = files.flatMap(valueImports);

function layer(file: string): number {
  const room = relative(src, file).split('/')[0]!;
  if (room.endsWith('.ts')) return order.length;
  return order.indexOf(beside[room] ?? room);
}

describe('the house', () => {
  test('is read at all', () => {
    expect(files.length).toBeGreaterThan(50);
    expect(imports.length).toBeGreaterThan(100);
  });

  test('every file is in a room', () => {
    expect(files.filter((file) => layer(file) < 0).map((file) => relative(src, file))).toEqual([]);
  });

  test('imports go one way', () => {
    const wrong = imports.filter(
      ({ from, to }) =>
        layer(to) > layer(from) ||
        (layer(to) === layer(from) && relative(src, to).split('/')[0] !== relative(src, from).split('/')[0]),
    );
    expect(wrong.map(({ from, to }) => `${relative(src, from)} → ${relative(src, to)}`)).toEqual([]);
  });

  test('there are no import cycles', () => {
    const next = new Map<string, string[]>();
    for (const { from, to } of imports) next.set(from, [...(next.get(from) ?? []), to]);
    const state = new Map<string, 'open' | 'done'>();
    const cycles: string[] = [];
    const visit = (file: string, path: readonly string[]): void => {
      if (state.get(file) === 'done') return;
      if (state.get(file) === 'open') {
        cycles.push([...path.slice(path.indexOf(file)), file].map((name) => relative(src, name)).join(' → '));
        return;
      }
      state.set(file, 'open');
      for (const to of next.get(file) ?? []) visit(to, [...path, file]);
      state.set(file, 'done');
    };
    for (const file of files) visit(file, []);
    expect(cycles).toEqual([]);
  });

  test('only base/env.ts reads the environment', () => {
    const readers = files.filter((file) => /process\.env\b/.test(readFileSync(file, 'utf8').replace(/\/\/.*$/gm, '')));
    expect(readers.map((file) => relative(src, file))).toEqual(['base/env.ts']);
  });

  test(`no file but tables is longer than ${longest} lines`, () => {
    const long = files.filter(
      (file) => !tables.has(relative(src, file)) && readFileSync(file, 'utf8').split('\n').length > longest,
    );
    expect(long.map((file) => relative(src, file))).toEqual([]);
  });

  test('every file says what it is', () => {
    const silent = files.filter((file) => !/^(#!.*\n)?\/\/ \S/.test(readFileSync(file, 'utf8')));
    expect(silent.map((file) => relative(src, file))).toEqual([]);
  });
});
