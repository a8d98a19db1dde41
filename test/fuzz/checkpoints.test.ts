// Thousands of damaged checkpoints: each opens, or is refused with a typed error. None crashes, hangs, fills memory or leaves a file open.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { openResources } from '../../src/base/dispose.ts';
import { TypertError } from '../../src/base/errors.ts';
import { openCheckpoint } from '../../src/define/checkpoint/open.ts';
import { writeSafetensors } from '../../src/define/checkpoint/safetensors-write.ts';
import { headerOf, mutateBytes, mutateJson, random, withHeader } from './mutate.ts';

const folder = mkdtempSync(join(tmpdir(), 'typert-fuzz-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const fixture = (name: string): Uint8Array =>
  readFileSync(fileURLToPath(new URL(`../goldens/gguf/${name}`, import.meta.url)));

/** Small files open in a millisecond; this is what "hangs" means, with room for a slow machine. */
const caseMs = 2_000;
const memoryBytes = 1 << 30;
let opened = 0;
let refused = 0;

/** Opens and reads all of it, or is refused with an error that says something. */
async function survives(path: string, label: string): Promise<void> {
  const start = performance.now();
  try {
    using checkpoint = await openCheckpoint(path, { cacheDir: join(folder, 'cache') });
    for (const name of [...checkpoint.tensors.tensors.keys()].slice(0, 20)) checkpoint.tensors.read(name);
    expect(checkpoint.assets.size, label).toBeLessThan(10);
    opened++;
  } catch (error) {
    if (!(error instanceof TypertError)) throw new Error(`${label}: ${String(error)}`, { cause: error });
    expect(error.message.length, label).toBeLessThan(4_000);
    expect(error.where, label).toBeTruthy();
    refused++;
  }
  expect(performance.now() - start, `${label} took too long`).toBeLessThan(caseMs);
  expect(process.memoryUsage().rss, `${label} took too much memory`).toBeLessThan(memoryBytes);
}

const config = JSON.stringify({
  architectures: ['LlamaForCausalLM'],
  hidden_size: 8,
  num_attention_heads: 2,
  rope_parameters: { rope_theta: 10000, rope_type: 'default' },
  eos_token_id: [2, 3],
});

async function weights(): Promise<Uint8Array> {
  const path = join(folder, 'seed.safetensors');
  const tensors = [
    { name: 'model.a', dtype: 'F32', shape: [4, 8], bytes: 128 },
    { name: 'model.b', dtype: 'BF16', shape: [8], bytes: 16 },
    { name: 'model.c', dtype: 'U8', shape: [3], bytes: 3 },
  ];
  await writeSafetensors(path, tensors, { format: 'pt' }, (tensor) => new Uint8Array(tensor.bytes));
  return readFileSync(path);
}

function huggingFace(parts: { config?: string; weights: Uint8Array; index?: string }): string {
  const place = join(folder, 'hf');
  rmSync(place, { recursive: true, force: true });
  mkdirSync(place);
  writeFileSync(join(place, 'config.json'), parts.config ?? config);
  if (parts.index === undefined) {
    writeFileSync(join(place, 'model.safetensors'), parts.weights);
  } else {
    writeFileSync(join(place, 'model-1.safetensors'), parts.weights);
    writeFileSync(join(place, 'model.safetensors.index.json'), parts.index);
  }
  return place;
}

test('safetensors: 900 files with damaged bytes or header fields, 150 damaged indexes', async () => {
  const before = openResources();
  const seed = await weights();
  const next = random(1);
  for (let i = 0; i < 450; i++)
    await survives(huggingFace({ weights: mutateBytes(seed, 400, next) }), `safetensors bytes ${i}`);
  for (let i = 0; i < 450; i++) {
    await survives(
      huggingFace({ weights: withHeader(seed, mutateJson(headerOf(seed).trim(), next)) }),
      `safetensors header ${i}`,
    );
  }
  const index = JSON.stringify({
    metadata: { total_size: 147 },
    weight_map: { 'model.a': 'model-1.safetensors', 'model.b': 'model-1.safetensors' },
  });
  for (let i = 0; i < 150; i++)
    await survives(huggingFace({ weights: seed, index: mutateJson(index, next) }), `index ${i}`);
  expect(openResources()).toEqual(before);
});

test('config.json: 350 damaged texts', async () => {
  const before = openResources();
  const seed = await weights();
  const next = random(2);
  for (let i = 0; i < 250; i++)
    await survives(huggingFace({ weights: seed, config: mutateJson(config, next) }), `config ${i}`);
  for (let i = 0; i < 100; i++) {
    const bytes = mutateBytes(new TextEncoder().encode(config), 1000, next);
    await survives(huggingFace({ weights: seed, config: Buffer.from(bytes).toString('latin1') }), `config bytes ${i}`);
  }
  expect(openResources()).toEqual(before);
});

test('GGUF: 1,000 files with damaged headers, metadata and tensors', async () => {
  const before = openResources();
  const next = random(3);
  const path = join(folder, 'x.gguf');
  for (const name of ['llama.q8_0.gguf', 'gpt2.q8_0.gguf']) {
    const seed = fixture(name);
    for (let i = 0; i < 500; i++) {
      writeFileSync(path, mutateBytes(seed, 2500, next));
      await survives(path, `${name} ${i}`);
    }
  }
  expect(openResources()).toEqual(before);
});

test('at least 2,000 cases ran, and both ends were met', () => {
  expect(opened + refused).toBeGreaterThanOrEqual(2_000);
  expect(opened).toBeGreaterThan(100);
  expect(refused).toBeGreaterThan(1_000);
});
