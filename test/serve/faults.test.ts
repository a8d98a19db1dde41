// Faults with a real engine behind a real socket: its thread killed in mid-step, a thousand clients that vanish, readers that do not read.
import { existsSync, readdirSync } from 'node:fs';
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { connect } from 'node:net';
import { LLM } from 'typert';
import { type RunningServer, startServer } from 'typert/serve';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { temporaryFolder } from '../support/temporary.ts';
import { until } from './support/requests.ts';

const folder = temporaryFolder();
const threads = createRequire(import.meta.url)('node:worker_threads') as typeof import('node:worker_threads');
const { Worker } = threads;
/** Threads of engines, the newest last. */
const engines: InstanceType<typeof Worker>[] = [];
let server: RunningServer;
let llm: LLM;

beforeAll(async () => {
  Object.assign(threads, {
    Worker: class extends Worker {
      constructor(...args: ConstructorParameters<typeof Worker>) {
        super(...args);
        if (args[1]?.name === 'typert engine') engines.push(this);
      }
    },
  });
  syncBuiltinESMExports();
  server = await startServer({
    models: [
      {
        name: 'story',
        load: async () => {
          llm = await LLM.load('models/storyteller-7m', { cacheDir: folder, maxBatchSize: 64, maxSeqLen: 512 });
          return llm;
        },
      },
    ],
    port: 0,
    watchInterval: 50,
    restartDelays: [10],
  });
  await server.loaded;
});
afterAll(async () => {
  await server?.close(0);
  Object.assign(threads, { Worker });
  syncBuiltinESMExports();
});

const endless = { prompt: 'Once upon a time', max_tokens: 450, temperature: 0, ignore_eos: true };
const ask = (body: object) =>
  fetch(`${server.url}/v1/completions`, { method: 'POST', body: JSON.stringify({ ...endless, ...body }) });
const short = async () =>
  ((await (await ask({ max_tokens: 8 })).json()) as { choices: { text: string }[] }).choices[0]!.text;

test('an engine killed in mid-step: errors within a second, not ready, then serving again', async () => {
  const before = await short();
  const streams = await Promise.all(Array.from({ length: 8 }, () => ask({ stream: true })));
  const readers = streams.map(({ body }) => body!.getReader());
  for (const reader of readers) await reader.read();
  const plain = Array.from({ length: 4 }, () => ask({}));
  await until(() => server.registry.get().numOpen === 12);
  const killed = performance.now();
  void engines.at(-1)!.terminate();
  const ends = await Promise.all(
    readers.map(async (reader) => {
      let text = '';
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return text;
        text += Buffer.from(value).toString();
      }
    }),
  );
  for (const text of ends) expect(text.trimEnd().split('\n').at(-1)).toContain('"code":"engine_unavailable"');
  for (const response of await Promise.all(plain)) {
    expect(response.status).toBe(503);
    expect(response.headers.get('retry-after')).toBe('1');
  }
  expect(performance.now() - killed).toBeLessThan(1000);
  expect((await fetch(`${server.url}/health/ready`)).status).toBe(503);
  await until(() => server.registry.ready, 30_000);
  expect(engines).toHaveLength(2);
  expect((await fetch(`${server.url}/health/ready`)).status).toBe(200);
  expect(await short()).toBe(before);
});

/** What this process has open, where the system tells. */
const descriptors = (): number => (existsSync('/proc/self/fd') ? readdirSync('/proc/self/fd').length : 0);

async function nothingLeft(): Promise<void> {
  const deadline = performance.now() + 20_000;
  for (;;) {
    const { requests, kvCacheStats } = await llm.statistics();
    if (requests.length === 0 && kvCacheStats.usedNumBlocks === 0 && server.registry.get().numOpen === 0) return;
    expect(performance.now()).toBeLessThan(deadline);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A request on a socket of its own, for clients that behave badly. */
function raw(body: object): ReturnType<typeof connect> {
  const text = JSON.stringify({ ...endless, ...body });
  const socket = connect(server.port, '127.0.0.1');
  socket.on('error', () => {});
  socket.write(`POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${text.length}\r\n\r\n${text}`);
  return socket;
}

test('a thousand clients that vanish leave no request, block or socket behind', async () => {
  const before = descriptors();
  let vanished = 0;
  const vanish = (at: number) =>
    new Promise<void>((resolve) => {
      const socket = raw({ stream: at % 4 !== 0 });
      // At the first byte, or before there is one.
      if (at % 4 === 0) setTimeout(() => socket.destroy(), at % 60);
      else socket.once('data', () => socket.destroy());
      socket.once('close', () => {
        vanished++;
        resolve();
      });
    });
  for (let round = 0; round < 10; round++)
    await Promise.all(Array.from({ length: 100 }, (_, i) => vanish(round * 100 + i)));
  expect(vanished).toBe(1000);
  await nothingLeft();
  await until(() => descriptors() <= before + 3);
  expect(await short()).not.toBe('');
});

test('readers that do not read hold neither others nor memory', async () => {
  const expected = await short();
  const sockets = Array.from({ length: 48 }, () => raw({ stream: true, logprobs: 20 }).pause());
  await until(() => server.registry.get().numOpen === 48);
  expect(await short()).toBe(expected);
  const { arrayBuffers, external } = process.memoryUsage();
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const after = process.memoryUsage();
  expect(after.arrayBuffers + after.external - arrayBuffers - external).toBeLessThan(64 << 20);
  for (const socket of sockets) socket.destroy();
  await nothingLeft();
});
