// `typert triton-repo`: what it writes, and its Python backend against a running server, with a stand-in for Triton.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LLM } from 'typert';
import { startServer } from 'typert/serve';
import { expect, test } from 'vitest';
import { typert } from '../support/cli.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { pythonHas, runPython } from './support/python.ts';

const folder = temporaryFolder();
const found = pythonHas(['numpy', 'tritonclient.grpc', 'google.protobuf']);

test('configurations with the tensors of TensorRT-LLM’s backend', async () => {
  const dir = join(folder, 'written');
  const args = ['triton-repo', dir, '--url', 'http://typert:8000', '--model', 'story', '--max-batch-size', '8'];
  expect(await typert(args)).toMatchObject({ code: 0, stdout: `ensemble, tensorrt_llm, story\n${dir}\n` });
  // Written again over itself.
  expect((await typert(args)).code).toBe(0);
  expect(readdirSync(dir).sort()).toEqual(['ensemble', 'story', 'tensorrt_llm']);
  expect(readdirSync(join(dir, 'ensemble', '1'))).toEqual(['model.py']);
  const config = readFileSync(join(dir, 'tensorrt_llm', 'config.pbtxt'), 'utf8');
  expect(config).toContain(
    'input {\n  name: "stop_words_list"\n  data_type: TYPE_INT32\n  dims: 2\n  dims: -1\n  optional: true\n}',
  );
  expect(config).toContain('max_batch_size: 8');
  expect(config).toContain('key: "typert_url"\n  value { string_value: "http://typert:8000" }');
});

test('what cannot be is refused, and nothing is written', async () => {
  const dir = join(folder, 'other');
  mkdirSync(dir);
  writeFileSync(join(dir, 'notes.txt'), '');
  expect(await typert(['triton-repo', dir])).toMatchObject({
    code: 2,
    stderr: expect.stringMatching(/something else.*notes/),
  });
  const fresh = join(folder, 'fresh');
  for (const more of [
    ['--url', 'typert:8000'],
    ['--model', '../up'],
  ])
    expect((await typert(['triton-repo', fresh, ...more])).code).toBe(2);
  expect(readdirSync(folder)).not.toContain('fresh');
});

test.skipIf(!found).each([
  ['decoupled', []],
  ['one response a request', ['--no-decoupled']],
])('the backend, %s (needs python3 with numpy and tritonclient[grpc])', async (name, flags) => {
  await using llm = await LLM.load('models/storyteller-7m', { cacheDir: folder });
  // As Triton's clients mean it when they say nothing of sampling.
  const story = await llm.generate('Once upon a time', { maxTokens: 12 });
  await using server = await startServer({
    models: [{ name: 'story', load: async () => llm, owned: false }],
    port: 0,
    apiKeys: ['secret'],
  });
  await server.loaded;
  const dir = join(folder, name.replaceAll(' ', '-'));
  expect((await typert(['triton-repo', dir, '--url', server.url, ...flags])).code).toBe(0);
  const script = fileURLToPath(new URL('support/triton/drive.py', import.meta.url));
  expect(await runPython([script, dir, story.outputs[0]!.text], { TYPERT_API_KEY: 'secret' })).toEqual({
    code: 0,
    output: 'ok\n',
  });
  expect((await llm.statistics()).requests).toEqual([]);
});
