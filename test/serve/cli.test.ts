// `typert serve` as a user and an orchestrator run it: start, ask, signal, end; wrong usage.
import { type ChildProcess, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { typert } from '../support/cli.ts';
import { temporaryFolder } from '../support/temporary.ts';

const folder = temporaryFolder();
const env = { TYPERT_CACHE: folder };
const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

interface Running {
  readonly child: ChildProcess;
  readonly url: string;
  readonly output: () => string;
  readonly ended: Promise<number | null>;
}

function start(args: readonly string[]): Promise<Running> {
  const child = spawn(process.execPath, [main, 'serve', ...args], { env: { ...process.env, ...env } });
  let output = '';
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  return new Promise((resolve, reject) => {
    const look = (chunk: unknown): void => {
      output += String(chunk);
      const url = /at (https?:\/\/\S+?)[,\s]/.exec(output)?.[1];
      if (url !== undefined) resolve({ child, url, output: () => output, ended });
    };
    child.stdout.on('data', look);
    child.stderr.on('data', (chunk) => (output += String(chunk)));
    void ended.then(() => reject(new Error(output)));
  });
}

const ask = (url: string, body: unknown, headers: Record<string, string> = {}) =>
  fetch(`${url}/v1/completions`, { method: 'POST', body: JSON.stringify(body), headers });

test('SIGTERM lets open streams finish, turns new requests away, and ends with 0', async () => {
  const { child, url, output, ended } = await start(['--port', '0', '--log-level', 'info']);
  expect(output()).toContain(`curl ${url}/v1/chat/completions`);
  const stream = await ask(url, { prompt: 'Once', max_tokens: 60, stream: true, temperature: 0, ignore_eos: true });
  const reader = stream.body!.getReader();
  await reader.read();
  child.kill('SIGTERM');
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    text += Buffer.from(value).toString();
  }
  expect(text).toMatch(/"finish_reason":"length"/);
  expect(text.trimEnd().endsWith('data: [DONE]')).toBe(true);
  expect(await ended).toBe(0);
  expect(output()).toMatch(/"outcome":"length","promptTokens":1,"completionTokens":60/);
  expect(output()).not.toContain('Once');
});

test('a configuration file: several models by name, keys, and the command line over it', async () => {
  const config = join(folder, 'serve.yaml');
  const keys = join(folder, 'keys.txt');
  writeFileSync(keys, '# of the test\nfirst\nsecond\n');
  writeFileSync(
    config,
    `port: 1\napi_key_file: ${keys}\nlog-level: silent\nmodels:\n  - model: models/storyteller-7m\n    name: one\n  - model: models/storyteller-7m\n    name: two\n    max_seq_len: 64\n`,
  );
  const { child, url, ended } = await start(['--config', config, '--port', '0']);
  const authorization = 'Bearer second';
  expect((await ask(url, { prompt: 'x' })).status).toBe(401);
  const models = await fetch(`${url}/v1/models`, { headers: { authorization } });
  expect(await models.json()).toMatchObject({ data: [{ id: 'one' }, { id: 'two', max_model_len: 64 }] });
  expect((await ask(url, { model: 'two', prompt: 'Once', max_tokens: 2 }, { authorization })).status).toBe(200);
  child.kill('SIGINT');
  expect(await ended).toBe(0);
});

test.each([
  [['--port', 'many'], 2, /expected an integer/],
  [['--tool-parser', 'nope', '--port', '0'], 2, /toolParser: no such parser; expected auto, none, hermes/],
  [['--tls-cert', 'x.pem'], 2, /expected both --tls-cert and --tls-key/],
  [['--config', '/nowhere.yaml'], 2, /cannot be read/],
  [['nowhere/at/all', '--port', '0'], 1, /nowhere\/at\/all/],
])('%o ends with %i', async (args, code, message) => {
  const result = await typert(['serve', ...args, '--log-level', 'silent'], { env });
  expect(result).toMatchObject({ code, stderr: expect.stringMatching(message) });
});

test('wrong names in the file are refused with the near ones', async () => {
  const config = join(folder, 'wrong.yaml');
  writeFileSync(config, 'prot: 1\n');
  const result = await typert(['serve', '--config', config], { env });
  expect(result).toMatchObject({
    code: 2,
    stderr: expect.stringMatching(/prot: unknown option\. Did you mean port\?/),
  });
});

test('a port that is taken', async () => {
  const { child, url, ended } = await start(['--port', '0', '--log-level', 'silent']);
  const second = await typert(['serve', '--port', new URL(url).port], { env });
  expect(second).toMatchObject({ code: 2, stderr: expect.stringMatching(/EADDRINUSE.*--port/) });
  child.kill('SIGTERM');
  expect(await ended).toBe(0);
});
