// The dashboard's cost: bytes transferred and time to first paint in a fresh browser, and what watching costs the engine. --screenshots DIR keeps pictures.
import { mkdirSync } from 'node:fs';
import { LLM } from 'typert';
import { startServer } from 'typert/serve';
import { chromiumPath, openBrowser } from '../scripts/chromium.mjs';

if (chromiumPath === undefined) {
  console.error('This bench needs Chromium: apt install chromium');
  process.exit(1);
}
const at = process.argv.indexOf('--screenshots');
const folder = at < 0 ? undefined : process.argv[at + 1];
const rounds = 7;

const llm = await LLM.load('models/storyteller-7m', { maxBatchSize: 16, kvCacheConfig: { maxTokens: 12_000 } });
const server = await startServer({
  models: [{ name: 'storyteller-7m', load: async () => llm, owned: false }],
  port: 0,
});
await server.loaded;
const browser = await openBrowser();

/** Loads the page with an empty cache. */
async function load(options = {}, view = 'live') {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  const page = await context.newPage();
  const devtools = await context.newCDPSession(page);
  await devtools.send('Network.enable');
  let bytes = 0;
  devtools.on('Network.loadingFinished', ({ encodedDataLength }) => {
    bytes += encodedDataLength;
  });
  await page.goto(`${server.url}/#${view}`);
  await page.locator('.dot[data-state=ready], .dot[data-state=busy]').waitFor();
  const paint = await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime");
  return { context, page, bytes, paint };
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const loads = [];
for (let i = 0; i < rounds; i++) {
  const { context, bytes, paint } = await load();
  loads.push({ bytes, paint });
  await context.close();
}
console.log(`transferred        ${(Math.max(...loads.map(({ bytes }) => bytes)) / 1000).toFixed(1)} kB`);
console.log(
  `first paint        ${median(loads.map(({ paint }) => paint)).toFixed(0)} ms (median of ${rounds}, most ${Math.max(...loads.map(({ paint }) => paint)).toFixed(0)} ms)`,
);

/** Tokens a second of eight requests, all at once. */
async function throughput() {
  const started = performance.now();
  const prompts = Array.from({ length: 8 }, (_, i) => `Story number ${i} ${Math.random()}`);
  const outputs = await llm.generate(prompts, { maxTokens: 400, ignoreEos: true, temperature: 1 });
  const tokens = outputs.reduce((sum, { outputs: [first] }) => sum + first.tokenIds.length, 0);
  return (tokens * 1000) / (performance.now() - started);
}

/** Reads the live stream as a page does, and throws it away: the server's part of the cost alone. */
function watch() {
  const ender = new AbortController();
  const read = async () => {
    const response = await fetch(`${server.url}/v1/typert/live?interval=250`, { signal: ender.signal });
    for await (const _ of response.body);
  };
  read().catch(() => {});
  return () => ender.abort();
}

await throughput();
const best = { alone: 0, watched: 0 };
for (let i = 0; i < rounds; i++) {
  best.alone = Math.max(best.alone, await throughput());
  const stop = watch();
  await new Promise((resolve) => setTimeout(resolve, 300));
  best.watched = Math.max(best.watched, await throughput());
  stop();
}
console.log(
  `throughput watched ${((100 * best.watched) / best.alone).toFixed(1)} % of unwatched (best of ${rounds} each)`,
);

if (folder !== undefined) {
  mkdirSync(folder, { recursive: true });
  const story =
    'You tell stories for small children about animals that live in the wood by the river and help each other. ';
  let going = true;
  const client = async (i) => {
    while (going) {
      const content = `${i % 3 === 0 ? '' : story.repeat(1 + (i % 2))}A story about number ${i} ${Math.random()}`;
      const body = { messages: [{ role: 'user', content }], n: i % 5 === 0 ? 2 : 1, ignore_eos: true };
      const max_tokens = 50 + Math.floor(Math.random() * 220);
      await fetch(`${server.url}/v1/chat/completions`, {
        method: 'POST',
        body: JSON.stringify({ ...body, max_tokens, stream: true }),
      }).then((response) => response.text());
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 600));
    }
  };
  const clients = Array.from({ length: 17 }, (_, i) => client(i));
  const shoot = async (name, options, view, wait = 4000) => {
    const { context, page } = await load(options, view);
    if (view === 'live' && options.viewport === undefined) {
      await page.getByLabel('Message').fill('Tell me a story about a fox and a drum.');
      await page.keyboard.press('Enter');
    }
    if (view === 'engine') await page.getByRole('button', { name: 'Time the kernels' }).click();
    await page.waitForTimeout(wait);
    await page.screenshot({ path: `${folder}/${name}.png` });
    await context.close();
  };
  await shoot('light', { colorScheme: 'light' }, 'live', 45_000);
  await shoot('dark', { colorScheme: 'dark' }, 'live', 20_000);
  const viewport = { width: 390, height: 844 };
  for (const view of ['live', 'chat', 'engine']) await shoot(`phone-${view}`, { viewport }, view);
  await shoot('engine', { colorScheme: 'light' }, 'engine');
  going = false;
  await Promise.all(clients);
}
await browser.close();
await server.close(0);
await llm[Symbol.asyncDispose]();
