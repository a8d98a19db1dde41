// Requests in a cache so small that blocks move to host memory and back, against the same in one that holds everything.
import type { Session } from '../../src/run/session/batch.ts';
import type { KvCacheConfig } from '../../src/run/session/options.ts';
import { readGolden } from './golden.ts';
import { runRequests } from './run-requests.ts';

/** Models, and the windows and sinks they are built with. */
export const movingCases: readonly {
  readonly name: string;
  readonly maxAttentionWindow?: readonly number[];
  readonly sinkTokenLength?: number;
}[] = [
  { name: 'llama' },
  { name: 'gemma2' },
  { name: 'llama', maxAttentionWindow: [14], sinkTokenLength: 3 },
  { name: 'qwen3', maxAttentionWindow: [20, 64], sinkTokenLength: 2 },
];

/** Which requests gave other tokens, and how many blocks came back from the host. */
export async function movingBlocks(name: string, open: (config: KvCacheConfig) => Promise<Session>) {
  const { prompts } = readGolden(name);
  const requests = Array.from({ length: 24 }, (_, i) => {
    const { ids } = prompts[i % prompts.length]!;
    // The same beginnings come again and again, with other prompts between them.
    const own = Array.from({ length: 6 }, (_, j) => ids[(i * 5 + j * 3) % ids.length]!);
    return {
      promptTokenIds: [...ids.slice(0, 12), ...(i % 3 === 0 ? [] : own), ids[i % ids.length]!],
      samplingParams: { maxTokens: 10 + (i % 7) },
      arrival: 2 * i,
    };
  });
  const run = async (config: KvCacheConfig) => {
    await using session = await open(config);
    const { results, engine } = await runRequests(session, requests, {
      schedulerConfig: { capacitySchedulerPolicy: 'max_utilization' },
    });
    return {
      tokens: results.map(({ outputs }) => outputs[0]!.tokenIds.join()),
      stats: engine.scheduler.blocks.stats(),
    };
  };
  const roomy = await run({ maxTokens: 2048, enableBlockReuse: false });
  const tight = await run({ maxTokens: 96, hostCacheSize: 1 << 20 });
  const wrong = roomy.tokens.flatMap((tokens, i) => (tokens === tight.tokens[i] ? [] : [i]));
  return { wrong, onboarded: tight.stats.onboardedBlocks };
}
