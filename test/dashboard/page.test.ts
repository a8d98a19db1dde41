// The dashboard as people meet it, in headless Chromium over the bundled model: chatting, the batch and the blocks under load, the engine, keys, light and dark, a phone, and axe-core.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { LLM } from 'typert';
import { type RunningServer, startServer } from 'typert/serve';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { chromiumPath, openBrowser } from '../../scripts/chromium.mjs';
import { temporaryFolder } from '../support/temporary.ts';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const desktop = { viewport: { width: 1440, height: 900 } };
const phone = { viewport: { width: 390, height: 844 } };
const shots = temporaryFolder();

interface Violation {
  readonly id: string;
  readonly impact: string | null;
  readonly nodes: readonly { readonly html: string }[];
}

describe.skipIf(chromiumPath === undefined)('the dashboard (skipped without Chromium: apt install chromium)', () => {
  const cacheDir = temporaryFolder();
  let llm: LLM;
  let server: RunningServer;
  let browser: Browser;
  const problems: string[] = [];
  const foreign: string[] = [];
  const loads: { stop(): Promise<void> }[] = [];

  beforeAll(async () => {
    llm = await LLM.load('models/storyteller-7m', { cacheDir, maxBatchSize: 8, kvCacheConfig: { maxTokens: 8192 } });
    server = await serve();
    browser = await openBrowser();
  });
  afterAll(async () => {
    await browser?.close();
    await server?.close(0);
    await llm?.[Symbol.asyncDispose]();
  });
  afterEach(async () => {
    for (const { stop } of loads.splice(0)) await stop();
    for (const context of browser.contexts()) await context.close();
    expect(problems.splice(0)).toEqual([]);
    expect(foreign.splice(0)).toEqual([]);
  });

  async function serve(apiKeys: readonly string[] = []): Promise<RunningServer> {
    const started = await startServer({
      models: [{ name: 'storyteller', load: async () => llm, owned: false }],
      port: 0,
      apiKeys,
    });
    await started.loaded;
    return started;
  }

  async function open(view: string, options: BrowserContextOptions = desktop, url = server.url): Promise<Page> {
    const page = await (await browser.newContext({ reducedMotion: 'reduce', ...options })).newPage();
    page.setDefaultTimeout(15_000);
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('console', (message) => {
      // A key that is wanted is an answer of 401, which the console reports as an error.
      if (message.type() === 'error' && !message.text().includes('401')) problems.push(message.text());
    });
    page.on('request', (request) => {
      if (!request.url().startsWith(url) && !request.url().startsWith('data:')) foreign.push(request.url());
    });
    await page.goto(view === '' ? url : `${url}/#${view}`);
    return page;
  }

  /** Keeps eight streams going, half of which begin alike, until told to stop. */
  function load(): { stop(): Promise<void> } {
    const ender = new AbortController();
    const story = 'Once there was a small fox who lived in a quiet wood near the river and liked to play the drum. ';
    const run = async (i: number): Promise<void> => {
      while (!ender.signal.aborted) {
        const content = i % 2 === 0 ? `${story.repeat(3)}Go on, ${i}.` : `A story about number ${i}`;
        const stream = llm.generateAsync(
          { messages: [{ role: 'user', content }] },
          { maxTokens: 200, ignoreEos: true, temperature: 1 },
          { signal: ender.signal },
        );
        try {
          for await (const _ of stream);
        } catch {
          return;
        }
      }
    };
    const all = Promise.all(Array.from({ length: 10 }, (_, i) => run(i)));
    const started = {
      stop: async () => {
        ender.abort();
        await all;
      },
    };
    loads.push(started);
    return started;
  }

  async function violations(page: Page): Promise<string[]> {
    await page.evaluate(axe);
    const found = (await page.evaluate('axe.run().then(({ violations }) => violations)')) as Violation[];
    return found
      .filter(({ impact }) => impact === 'serious' || impact === 'critical')
      .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(' | ')}`);
  }

  /** Waits until an expression is true in the page, asked from outside: the page's own policy allows no eval. */
  async function holds(page: Page, expression: string): Promise<void> {
    await expect
      .poll(() => page.evaluate(`Boolean(${expression})`), { timeout: 15_000, message: expression })
      .toBe(true);
  }

  const pixels = (page: Page, selector: string): Promise<string> =>
    page.$eval(selector, (canvas) => (canvas as unknown as { toDataURL(): string }).toDataURL());

  test('chats: streams an answer with its numbers, again, stopped, and with a seed the same', async () => {
    const page = await open('live');
    await page.getByText('Sampling and system prompt').click();
    await page.getByLabel('Seed').fill('7');
    await page.getByLabel('Max tokens').fill('40');
    await page.getByLabel('Message').fill('A story about a fox');
    await page.keyboard.press('Enter');
    await page.getByText('Regenerate').waitFor();
    const answer = page.locator('.transcript .assistant .text').last();
    const meta = page.locator('.transcript .assistant .meta').last();
    const first = await answer.textContent();
    expect(first!.length).toBeGreaterThan(20);
    expect(await meta.textContent()).toMatch(
      /^\d+ in.* · 40 tokens · [\d,.]+ tok\/s · first after .* · cut off at its limit$/,
    );
    await page.getByText('Regenerate').click();
    await holds(page, 'document.querySelectorAll(".assistant[data-state=done]").length === 1');
    await page.getByText('Regenerate').waitFor();
    expect(await answer.textContent()).toBe(first);
    // The conversation goes on, and Escape ends an answer.
    await page.getByLabel('Max tokens').fill('');
    await page.getByLabel('Temperature').fill('0');
    await page.getByLabel('Message').fill('Tell me more');
    await page.keyboard.press('Enter');
    await holds(page, 'document.querySelectorAll(".assistant .text")[1]?.textContent.length > 10');
    await page.keyboard.press('Escape');
    await holds(page, 'document.querySelectorAll(".assistant")[1].dataset.state !== "running"');
    expect(await page.locator('.transcript > li').count()).toBe(4);
  });

  test('says in the server’s words what was wrong, and what is out of range', async () => {
    const page = await open('live');
    await page.getByLabel('Message').fill('word '.repeat(2000));
    await page.keyboard.press('Enter');
    await page.getByText('Try again').waitFor();
    expect(await page.locator('.assistant .meta').textContent()).toMatch(/too long/);
    await page.getByText('Sampling and system prompt').click();
    await page.getByLabel('Top-p').fill('3');
    await page.getByText('Try again').click();
    await holds(page, 'document.querySelector(".status").textContent.startsWith("Top-p")');
    problems.length = 0; // The 400 that was wanted.
  });

  test('shows the batch, the blocks and the queue change under load, in light and in dark', async () => {
    const page = await open('live', { ...desktop, colorScheme: 'light' });
    await page.getByText('The engine has computed nothing yet').or(page.getByText('was the last one')).waitFor();
    const before = await pixels(page, '.map');
    const burst = load();
    await holds(page, 'document.querySelectorAll(".sequences li").length === 8');
    const step = await page.locator('.step h2').textContent();
    await holds(page, `document.querySelector('.step h2').textContent !== ${JSON.stringify(step)}`);
    expect(await pixels(page, '.map')).not.toBe(before);
    // Those that begin alike share blocks; two wait beyond the batch of eight.
    await holds(
      page,
      '[...document.querySelectorAll(".blocks .legend li")].some((li) => /^[1-9]\\d* by (two|three|more)/.test(li.textContent.trim()))',
    );
    await page.locator('.queue').getByText('wait for a place').waitFor();
    expect(await page.locator('.packed i').count()).toBeGreaterThan(0);
    await holds(page, '/\\d/.test(document.querySelector(".strip .value").textContent.replace(/^0 /, ""))');
    const chart = await pixels(page, '.chart canvas');
    await page.waitForTimeout(1200);
    expect(await pixels(page, '.chart canvas')).not.toBe(chart);
    // A sequence that is looked at lights its blocks up.
    const plain = await pixels(page, '.map');
    await page.locator('.sequences li').first().focus();
    expect(await pixels(page, '.map')).not.toBe(plain);
    expect(await violations(page)).toEqual([]);
    const light = await page.screenshot({ path: `${shots}/light.png` });
    const paper = (): Promise<unknown> => page.evaluate('getComputedStyle(document.body).backgroundColor');
    const lightPaper = await paper();
    await page.emulateMedia({ colorScheme: 'dark' });
    expect(await paper()).not.toBe(lightPaper);
    expect(await violations(page)).toEqual([]);
    const dark = await page.screenshot({ path: `${shots}/dark.png` });
    expect(dark.equals(light)).toBe(false);
    // The reader's choice goes before the system's.
    await page.getByLabel('Colours').click();
    expect(await paper()).toBe(lightPaper);
    await burst.stop();
    await page.getByText('was the last one').waitFor();
    await page.getByText('Nobody waits').waitFor();
  });

  test('draws the engine, and times its kernels', async () => {
    const page = await open('engine');
    await page.getByText('LlamaForCausalLM').waitFor();
    await page.getByRole('button', { name: 'Time the kernels' }).click();
    await page.getByText(/steps? of 1\.0 tokens on average/).waitFor();
    const shares = await page.locator('.kernels .share').allTextContents();
    expect(shares.length).toBeGreaterThan(5);
    expect(shares.reduce((sum, text) => sum + Number.parseFloat(text), 0)).toBeGreaterThan(95);
    await page.getByRole('button', { name: /^Layer 3/ }).click();
    const launch = page.getByRole('button', { name: /^pagedAttention/ });
    await launch.focus();
    await page.keyboard.press('Enter');
    expect(await launch.getAttribute('aria-pressed')).toBe('true');
    await page.locator('.detail').getByText('transformer.layers.3.attention').waitFor();
    expect(await violations(page)).toEqual([]);
  });

  test('fits a phone, in every view', async () => {
    load();
    for (const view of ['live', 'chat', 'engine']) {
      const page = await open(view, phone);
      await page.locator({ live: '.sequences li', chat: '.composer', engine: '.kernels' }[view]!).first().waitFor();
      expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(390);
      expect(await violations(page)).toEqual([]);
      await page.screenshot({ path: `${shots}/phone-${view}.png` });
    }
  });

  test('works by keyboard alone', async () => {
    const page = await open('', phone);
    await page.locator('.dot[data-state=ready]').waitFor();
    await page.keyboard.press('Tab');
    expect(await page.evaluate('document.activeElement.textContent')).toBe('Skip to content');
    await page.getByRole('link', { name: 'Engine' }).focus();
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'Time the kernels' }).waitFor();
    await page.getByRole('link', { name: 'Live' }).focus();
    await page.keyboard.press('Enter');
    await page.locator('.map').focus();
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowRight');
    await page.getByText(/^Block 1: /).waitFor();
  });

  test('asks for a key when the server wants one, and says when it is wrong', async () => {
    await using closed = await serve(['right']);
    const page = await open('live', desktop, closed.url);
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Key').fill('wrong');
    await page.keyboard.press('Enter');
    await dialog.getByText('is not one of its keys').waitFor();
    expect(await violations(page)).toEqual([]);
    await dialog.getByLabel('Key').fill('right');
    await page.keyboard.press('Enter');
    await page.locator('.dot[data-state=ready]').waitFor();
    expect(await dialog.count()).toBe(0);
    await page.getByLabel('Message').fill('Hello');
    await page.keyboard.press('Enter');
    await page.getByText('Regenerate').waitFor();
  });

  test('says when the server is gone', async () => {
    const other = await serve();
    const page = await open('live', desktop, other.url);
    await page.locator('.dot[data-state=ready]').waitFor();
    await other.close(0);
    await page.getByText('The server does not answer').waitFor();
    await page.locator('.dot[data-state=gone]').waitFor();
    problems.length = 0; // Its console says so as well.
  });
});
