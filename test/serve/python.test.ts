// PyPI's openai and tritonclient against the server, where Python and the two are installed.
import { spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { LLM } from 'typert';
import { startServer } from 'typert/serve';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../support/temporary.ts';

const cacheDir = temporaryFolder();
const imports = ['openai', 'tritonclient.http', 'tritonclient.grpc', 'numpy'];
const found = spawnSync('python3', ['-c', `import ${imports.join(', ')}`], { timeout: 60_000 }).status === 0;

test.skipIf(!found)(`python clients (needs python3 with openai and tritonclient[all])`, async () => {
  await using llm = await LLM.load('models/storyteller-7m', { cacheDir });
  const messages = [{ role: 'user', content: 'A story about a fox' }];
  const answer = (await llm.generate({ messages }, { temperature: 0, maxTokens: 12 })).outputs[0]!.text;
  await using server = await startServer({
    models: [{ name: 'story', load: async () => llm, owned: false }],
    port: 0,
    grpcPort: 0,
  });
  await server.loaded;
  const script = fileURLToPath(new URL('support/clients.py', import.meta.url));
  const child = spawn('python3', [script, server.url, String(server.grpcPort), answer]);
  let output = '';
  child.stdout.on('data', (chunk) => (output += String(chunk)));
  child.stderr.on('data', (chunk) => (output += String(chunk)));
  const code = await new Promise((resolve) => child.on('close', resolve));
  expect({ code, output }).toEqual({ code: 0, output: 'ok\n' });
});
