// What only a real socket shows: readers that do not read, clients that vanish, TLS, draining.
import { execFileSync } from 'node:child_process';
import { request } from 'node:http';
import { request as secureRequest } from 'node:https';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type RunningServer, startServer } from 'typert/serve';
import { afterEach, expect, test } from 'vitest';
import { temporaryFolder } from '../support/temporary.ts';
import { FakeLLM, type FakeOptions } from './support/fake-llm.ts';
import { until } from './support/requests.ts';

const folder = temporaryFolder();
let server: RunningServer;
afterEach(async () => await server.close(0));

async function start(options: FakeOptions, more: Partial<Parameters<typeof startServer>[0]> = {}): Promise<FakeLLM> {
  const llm = new FakeLLM(options);
  server = await startServer({ models: [{ name: 'fake', load: async () => llm }], port: 0, ...more });
  await server.loaded;
  return llm;
}

const endless = { forever: 'word ', maxSeqLen: 1_000_000 };
const body = JSON.stringify({ prompt: 'x', max_tokens: 5000, stream: true });

test('a reader that does not read stops the source', async () => {
  const llm = await start({ ...endless, forever: 'word'.repeat(5000) });
  const socket = connect(server.port, '127.0.0.1');
  socket.pause();
  socket.write(`POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
  await until(() => llm.numYielded > 10);
  let before = -1;
  // The kernel's buffers fill up; then nothing more is asked of the model.
  await until(() => {
    const same = llm.numYielded === before;
    before = llm.numYielded;
    return same && before > 10;
  }, 20_000);
  const stopped = llm.numYielded;
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(llm.numYielded).toBe(stopped);
  expect(stopped).toBeLessThan(2000);
  expect(llm.numOpen).toBe(1);
  socket.destroy();
  await until(() => llm.numOpen === 0);
});

test('a storm of clients that vanish leaves nothing behind', async () => {
  const llm = await start({ ...endless, delay: 1, maxBatchSize: 1000 });
  const vanish = (stream: boolean) =>
    new Promise<void>((resolve) => {
      const payload = JSON.stringify({ prompt: 'x', max_tokens: 10_000, stream });
      const sent = request({ port: server.port, method: 'POST', path: '/v1/completions' }, (response) => {
        response.once('data', () => sent.destroy());
      });
      sent.on('error', () => {});
      sent.on('close', () => resolve());
      sent.end(payload);
      if (!stream) setTimeout(() => sent.destroy(), 30);
    });
  for (let round = 0; round < 5; round++) await Promise.all(Array.from({ length: 100 }, (_, i) => vanish(i % 4 !== 0)));
  await until(() => llm.numOpen === 0 && server.registry.get().numOpen === 0);
  expect(llm.numStarted).toBeGreaterThan(300);
  const text = await (await fetch(`${server.url}/metrics`)).text();
  expect(text).toContain('typert_requests_open{model_name="fake"} 0');
});

test('closing waits for open streams as long as it is told', async () => {
  const llm = await start({ ...endless, delay: 5 });
  const stream = await fetch(`${server.url}/v1/completions`, { method: 'POST', body });
  const reading = stream.text();
  await until(() => llm.numYielded > 2);
  const started = performance.now();
  await server.close(200);
  expect(performance.now() - started).toBeLessThan(2000);
  expect(await reading).toMatch(/"code":"shutting_down"/);
  expect([llm.numOpen, llm.disposed]).toEqual([0, 1]);
});

test('TLS', async () => {
  const [certFile, keyFile] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  const subject = ['-subj', '/CN=localhost', '-days', '2'];
  try {
    const args = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', keyFile, '-out', certFile, ...subject];
    execFileSync('openssl', args, { stdio: 'ignore' });
  } catch {
    // Without openssl there is no certificate to serve with; the rest of the file still needs a server to close.
    await start({});
    return;
  }
  await start({}, { tls: { certFile, keyFile } });
  expect(server.url).toMatch(/^https:/);
  const status = await new Promise((resolve, reject) => {
    secureRequest(`${server.url}/health`, { rejectUnauthorized: false }, (response) => resolve(response.statusCode))
      .on('error', reject)
      .end();
  });
  expect(status).toBe(200);
});
