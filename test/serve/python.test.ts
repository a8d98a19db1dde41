// PyPI's openai and tritonclient, and lm-eval, against the server, where Python has them. `.ci/run` installs them.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LLM } from 'typert';
import { startServer } from 'typert/serve';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../support/temporary.ts';
import { pythonHas, runPython } from './support/python.ts';

const folder = temporaryFolder();
const support = (name: string): string => fileURLToPath(new URL(`support/${name}`, import.meta.url));

async function serve(llm: LLM) {
  const server = await startServer({
    models: [{ name: 'story', load: async () => llm, owned: false }],
    port: 0,
    grpcPort: 0,
  });
  await server.loaded;
  return server;
}

const clients = ['openai', 'tritonclient.http', 'tritonclient.grpc', 'numpy'];
test.skipIf(!pythonHas(clients))(
  'openai and tritonclient (needs python3 with openai and tritonclient[http,grpc])',
  async () => {
    await using llm = await LLM.load('models/storyteller-7m', { cacheDir: folder });
    const messages = [{ role: 'user', content: 'A story about a fox' }];
    const answer = (await llm.generate({ messages }, { temperature: 0, maxTokens: 12 })).outputs[0]!.text;
    await using server = await serve(llm);
    const args = [support('clients.py'), server.url, String(server.grpcPort), answer];
    expect(await runPython(args)).toEqual({ code: 0, output: 'ok\n' });
  },
);

test.skipIf(!pythonHas(clients))(
  'KServe v2: every REST route and gRPC method against the public schema (needs python3 with tritonclient[http,grpc])',
  async () => {
    await using llm = await LLM.load('models/storyteller-7m', { cacheDir: folder });
    await using server = await serve(llm);
    const args = [support('conformance.py'), server.url, String(server.grpcPort)];
    expect(await runPython(args)).toEqual({ code: 0, output: 'ok\n' });
  },
);

interface Sample {
  readonly doc: { readonly context: string; readonly good: string; readonly bad: string };
  /** Log-likelihood and whether it is what the model would say, by choice. */
  readonly filtered_resps: readonly (readonly [number | string, boolean | string])[];
}

test.skipIf(!pythonHas(['lm_eval', 'transformers', 'aiohttp', 'tenacity']))(
  'lm-eval’s local-completions runs a task by log-likelihood (needs python3 with lm-eval[api] and transformers)',
  async () => {
    await using llm = await LLM.load('models/storyteller-7m', { cacheDir: folder });
    await using server = await serve(llm);
    const tasks = join(folder, 'tasks');
    mkdirSync(tasks);
    const yaml = readFileSync(support('lm-eval/stories.yaml'), 'utf8');
    writeFileSync(join(tasks, 'stories.yaml'), yaml.replace('STORIES', support('lm-eval/stories.jsonl')));
    const model = `model=story,base_url=${server.url}/v1/completions,tokenizer=models/storyteller-7m,tokenizer_backend=huggingface`;
    const { code, output } = await runPython(
      [
        ...['-m', 'lm_eval', '--model', 'local-completions', '--model_args', `${model},num_concurrent=4`],
        ...['--include_path', tasks, '--tasks', 'stories', '--output_path', join(folder, 'results'), '--log_samples'],
      ],
      { HF_HUB_OFFLINE: '1', HF_DATASETS_OFFLINE: '1', HF_HOME: join(folder, 'hf') },
    );
    expect({ code, output }).toMatchObject({ code: 0 });
    const results = join(folder, 'results', 'story');
    const file = readdirSync(results).find((name) => name.startsWith('samples_stories'))!;
    const samples = readFileSync(join(results, file), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Sample);
    expect(samples).toHaveLength(6);
    for (const { doc, filtered_resps } of samples) {
      const context = llm.encode(doc.context).promptTokenIds.length;
      for (const [at, choice] of [doc.good, doc.bad].entries()) {
        const ids = llm.encode(doc.context + choice).promptTokenIds;
        const { promptLogprobs } = await llm.generate(
          { promptTokenIds: ids },
          { maxTokens: 1, temperature: 0, promptLogprobs: 0 },
        );
        const sum = ids
          .slice(context)
          .reduce((total, id, i) => total + promptLogprobs![context + i]!.get(id)!.logprob, 0);
        expect(Number(filtered_resps[at]![0])).toBeCloseTo(sum, 3);
      }
    }
  },
);
