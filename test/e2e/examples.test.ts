// The examples run as they are written, on the package as a user has it.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

const cache = mkdtempSync(join(tmpdir(), 'typert-examples-'));
afterAll(() => rmSync(cache, { recursive: true, force: true }));

describe('examples', () => {
  let printed = '';

  beforeEach(() => {
    printed = '';
    vi.stubEnv('TYPERT_CACHE', cache);
    vi.stubEnv('TYPERT_TARGET', 'reference');
    vi.spyOn(console, 'log').mockImplementation((...values: unknown[]) => {
      printed += `${values.join(' ')}\n`;
    });
    vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
      printed += String(text);
      return true;
    });
  });

  afterEach(() => {
    vi.restoreAllMocks();
    vi.unstubAllEnvs();
  });

  test('generate: four sequences of three prompts', async () => {
    await import('../../examples/generate.ts');
    expect(printed.trim().split('\n')).toHaveLength(4);
    expect(printed).toMatch(/^\[4 → 24 tokens, length\] 0: , there was a little/);
  });

  test('stream: the loop is left early, the signal ends the second request', async () => {
    await import('../../examples/stream.ts');
    const [first, second, third] = printed.trim().split('\n');
    expect(first).toMatch(/^, there was a little .* …$/);
    expect(second!.length).toBeGreaterThan(10);
    expect(third).toBe('(that is enough)');
  });

  test('executor: an engine on token ids', async () => {
    await import('../../examples/executor.ts');
    expect(printed.match(/^request \d+: (?:8|16|24) tokens/gm)).toHaveLength(3);
    expect(printed).toMatch(/32 of 32 blocks free\n$/);
  });

  test('custom-model: an architecture that TypeRT does not know', async () => {
    await import('../../examples/custom-model.ts');
    const [sizes, tokens] = printed.trim().split('\n');
    expect(sizes).toBe('30 nodes, 22 launches a step');
    expect(tokens).toMatch(/^\[(?:\d+,){11}\d+\] length$/);
  });
});
