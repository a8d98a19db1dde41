// The routes behind the dashboard and the page's files, without a browser.
import { LLM } from 'typert';
import { createApp, Registry, Watch } from 'typert/serve';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { serveFake, until } from '../serve/support/requests.ts';
import { temporaryFolder } from '../support/temporary.ts';

/** Reads events of a stream until `enough`, then leaves it. */
async function readUntil(
  response: Response,
  enough: (event: Record<string, never>) => boolean,
): Promise<Record<string, never>[]> {
  const found: Record<string, never>[] = [];
  let rest = '';
  const decoder = new TextDecoder();
  for await (const bytes of response.body!) {
    const parts = (rest + decoder.decode(bytes as Uint8Array)).split('\n\n');
    rest = parts.pop()!;
    for (const part of parts) found.push(JSON.parse(part.replace('data: ', '')) as Record<string, never>);
    if (found.some(enough)) return found;
  }
  return found;
}

describe('over a fake model', () => {
  test('the stream tells of states, and keeps nothing when its reader is gone', async () => {
    const watch = new Watch();
    const { get, llm } = await serveFake({ app: { watch } });
    const abort = new AbortController();
    const response = await get('/v1/typert/live?interval=50', { signal: abort.signal });
    expect(response.headers.get('content-type')).toContain('text/event-stream');
    const reader = response.body!.getReader();
    const first = new TextDecoder().decode((await reader.read()).value);
    expect(JSON.parse(first.slice(6))).toMatchObject({ model: 'fake', state: 'ready', numOpen: 0 });
    expect(watch.numViewers).toBe(1);
    llm.die();
    const second = new TextDecoder().decode((await reader.read()).value);
    expect(JSON.parse(second.slice(6))).toMatchObject({ state: 'failed', reason: 'the engine thread died' });
    await reader.cancel();
    await until(() => watch.numViewers === 0);
  });

  test.each([
    ['/v1/typert/live?interval=1', 400],
    ['/v1/typert/live?interval=soon', 400],
    ['/v1/typert/live?model=nobody', 404],
    ['/v1/typert/engine?model=nobody', 404],
    ['/dashboard/nothing.js', 404],
    ['/dashboard/..%2f..%2fpackage.json', 404],
    ['/dashboard/%2e%2e/index.html', 404],
  ])('%s is refused with %i', async (path, status) => {
    const { get } = await serveFake();
    expect((await get(path)).status).toBe(status);
  });

  test('a profile of too many steps is refused', async () => {
    const { post } = await serveFake();
    expect((await post('/v1/typert/profile', { steps: 100_000 })).status).toBe(400);
  });

  test('the page is open, what it shows is not', async () => {
    const { get, post } = await serveFake({ app: { apiKeys: ['key'] } });
    const page = await get('/', { headers: { accept: 'text/html,*/*' } });
    expect(page.status).toBe(200);
    expect(page.headers.get('content-security-policy')).toContain("default-src 'none'");
    for (const path of ['/v1/typert/live', '/v1/typert/engine', '/server_info'])
      expect((await get(path)).status).toBe(401);
    expect((await post('/v1/typert/profile', {})).status).toBe(401);
    expect((await get('/v1/typert/live', { headers: { authorization: 'Bearer key' } })).status).toBe(200);
  });

  test('programs that ask whether anybody is there get a line', async () => {
    const { get } = await serveFake();
    expect(await (await get('/', { headers: { accept: '*/*' } })).text()).toBe('TypeRT is running');
  });

  test('the page is small and asks nobody else', async () => {
    const { get } = await serveFake();
    const html = await (await get('/', { headers: { accept: 'text/html' } })).text();
    const names = [...html.matchAll(/(?:src|href)="(\/dashboard\/[^"]+)"/g)].map(([, name]) => name!);
    expect(names).toHaveLength(2);
    let bytes = html.length;
    for (const name of names) {
      const response = await get(name);
      expect(response.headers.get('cache-control')).toContain('immutable');
      const text = await response.text();
      bytes += text.length;
      // The namespace of SVG is a name, not an address.
      expect(text.replaceAll('http://www.w3.org/2000/svg', '')).not.toMatch(/https?:\/\/|@import|url\((?!#)/);
    }
    expect(bytes).toBeLessThan(120_000);
  });
});

describe('over the bundled model', () => {
  const cacheDir = temporaryFolder();
  let llm: LLM;
  let app: ReturnType<typeof createApp>;
  const ask = async (path: string, init: RequestInit = {}) => await app.fetch(new Request(`http://test${path}`, init));
  const post = (path: string, body: unknown) => ask(path, { method: 'POST', body: JSON.stringify(body) });

  beforeAll(async () => {
    llm = await LLM.load('models/storyteller-7m', { cacheDir, maxBatchSize: 4 });
    const registry = new Registry([{ name: 'story', load: async () => llm, owned: false }]);
    await registry.load();
    app = createApp({ registry });
  });
  afterAll(async () => await llm?.[Symbol.asyncDispose]());

  test('a request is seen from its arrival to its end, without its words', async () => {
    const live = ask('/v1/typert/live?interval=50');
    const secret = 'Xylophone zebra';
    const body = { messages: [{ role: 'user', content: secret }], max_tokens: 100, ignore_eos: true };
    const answered = post('/v1/chat/completions', body).then((response) => response.json());
    type Seen = { engine: { running: unknown[] }; requests: { timeToFirstToken: number[]; numEnded: number } };
    const ended = (event: unknown): boolean => (event as Seen).requests.numEnded > 0;
    const seen = (await readUntil(await live, ended)) as unknown as Seen[];
    await answered;
    const running = seen.flatMap(({ engine }) => engine.running);
    expect(running.length).toBeGreaterThan(0);
    expect(running[0]).toMatchObject({ status: 'running', maxTokens: 100, index: 0 });
    expect(seen.flatMap(({ requests }) => requests.timeToFirstToken)).toHaveLength(1);
    expect(JSON.stringify(seen)).not.toMatch(/xylophone|zebra/i);
  });

  test('the engine is described by its plan', async () => {
    const described = (await (await ask('/v1/typert/engine')).json()) as {
      plan: { phases: { forward: unknown[]; sample: unknown[] } };
    };
    expect(described).toMatchObject({
      model: 'story',
      config: { pretrained_config: { architecture: 'LlamaForCausalLM' } },
      memory: { weights: expect.any(Number), kvBlock: expect.any(Number) },
    });
    expect(described.plan.phases.forward.length).toBeGreaterThan(20);
  });

  test('an idle engine is timed with a request of its own, every launch', async () => {
    type Steps = { numSteps: number; forward: number[]; sample: number[]; totalMs: number };
    const answer = (await (await post('/v1/typert/profile', { steps: 8 })).json()) as {
      load: string;
      generation: Steps;
      context: Steps;
    };
    expect(answer).toMatchObject({ load: 'own', context: { numSteps: 1 }, generation: { numSteps: 7 } });
    for (const { forward, sample, totalMs } of [answer.generation, answer.context]) {
      expect([...forward, ...sample].every((ms) => ms > 0)).toBe(true);
      expect([...forward, ...sample].reduce((a, b) => a + b)).toBeLessThanOrEqual(totalMs);
    }
  });
});
