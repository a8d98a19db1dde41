// Where kernel sources come from, and the include closure of one: exactly the files that decide what is compiled.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CompileError } from '../../base/errors.ts';

/** Named texts: a folder on disk, or the sources an engine carries. */
export interface SourceTree {
  /** The text of a file by its path in the tree, or undefined. */
  read(path: string): string | undefined;
}

/** A folder's files, read once each. */
export function folderTree(folder: string): SourceTree {
  const texts = new Map<string, string | undefined>();
  return {
    read(path) {
      if (!texts.has(path)) {
        try {
          texts.set(path, readFileSync(join(folder, path), 'utf8'));
        } catch {
          texts.set(path, undefined);
        }
      }
      return texts.get(path);
    },
  };
}

export function mapTree(files: ReadonlyMap<string, string>): SourceTree {
  return { read: (path) => files.get(path) };
}

/** The kernels this package ships: src/kernels, or dist/kernels once built. */
export function packageKernels(): SourceTree {
  return folderTree(fileURLToPath(new URL('../../kernels', import.meta.url)));
}

const quoted = /^[ \t]*#[ \t]*include[ \t]*"([^"]+)"/gm;

/**
 * Every file that `text` includes with quotes, directly or not, by its path in the tree. Paths are from the tree's root.
 * Throws CompileError when one is missing.
 */
export function includeClosure(tree: SourceTree, text: string, where: string): Map<string, string> {
  const closure = new Map<string, string>();
  const visit = (source: string, from: string): void => {
    for (const [, name] of source.matchAll(quoted)) {
      const path = normalize(name!).replaceAll('\\', '/');
      if (closure.has(path)) continue;
      const found = tree.read(path);
      if (found === undefined) throw new CompileError('an included file is missing', { where: from, expected: path });
      closure.set(path, found);
      visit(found, path);
    }
  };
  visit(text, where);
  return new Map([...closure].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** A hash of texts in order; each is preceded by its length, so that no two lists run together. */
export function hashTexts(texts: Iterable<string>): string {
  const hash = createHash('sha256');
  for (const text of texts) hash.update(`${Buffer.byteLength(text)}:`).update(text);
  return hash.digest('hex').slice(0, 32);
}
