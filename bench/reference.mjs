// The bundled model on the reference target: building, starting, decoding alone and in a batch, best of three.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LLM } from 'typert';
import { buildEngine, findTarget, openCheckpoint } from 'typert/engine';

const target = process.argv[2] ?? 'reference';
const model = fileURLToPath(new URL('../models/storyteller-7m', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'typert-bench-'));
const seconds = async (work) => {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
};
const best = async (work, runs = 3) => {
  const times = [];
  for (let i = 0; i < runs; i++) times.push(await seconds(work));
  return Math.min(...times);
};

try {
  const engineDir = join(folder, 'engine');
  const build = async () => {
    const checkpoint = await openCheckpoint(model, { cacheDir: folder });
    await buildEngine({ checkpoint, target: findTarget(target), engineDir });
    checkpoint[Symbol.dispose]();
  };
  const built = await best(build);
  let llm;
  const started = await seconds(async () => {
    llm = await LLM.load(engineDir);
    await llm.generate('Once upon a time', { maxTokens: 1 });
  });
  const tokens = 128;
  const options = { maxTokens: tokens, temperature: 0, ignoreEos: true };
  const one = await best(async () => await llm.generate('Once', options));
  const eight = await best(async () => await llm.generate(new Array(8).fill('Once'), options));
  // Another prompt each time: one that was seen would be found in the KV cache.
  let run = 0;
  const prompt = () => ({ promptTokenIds: Array.from({ length: 256 }, (_, i) => 3 + (((i + 1) * 37 + run) % 4000)) });
  const context = await best(async () => {
    run++;
    await llm.generate(prompt(), { maxTokens: 1 });
  });
  await llm[Symbol.asyncDispose]();
  const rows = [
    ['build', `${built.toFixed(2)} s`],
    ['engine to first token', `${started.toFixed(2)} s`],
    ['decode, batch 1', `${(tokens / one).toFixed(0)} tokens/s`],
    ['decode, batch 8', `${((8 * tokens) / eight).toFixed(0)} tokens/s`],
    ['prompt of 256', `${(256 / context).toFixed(0)} tokens/s`],
  ];
  process.stdout.write(
    `storyteller-7m on ${target}, best of 3\n${rows.map(([what, value]) => `  ${what.padEnd(22)} ${value}`).join('\n')}\n`,
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}
