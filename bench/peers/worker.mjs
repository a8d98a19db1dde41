// What both peers have in common: a process that loads a model, then measures what it is asked for, a line of JSON each way.
import { createInterface } from 'node:readline';

/** Tokens that no earlier prompt began with, so that nothing is taken from a cache. */
let prompts = 0;
export function prompt(count, vocab) {
  const seed = ++prompts * 7919;
  return Array.from({ length: count }, (_, i) => 300 + ((seed + i * 37 + i * i * 11) % (vocab - 300)));
}

/** `generate(prompts, maxTokens, onToken)` runs all prompts at once; resolves when each has its tokens. */
export async function serve(vocab, generate) {
  const say = (value) => process.stdout.write(`@${JSON.stringify(value)}\n`);
  say({ ready: true });
  for await (const line of createInterface({ input: process.stdin })) {
    const { requests, promptTokens, maxTokens } = JSON.parse(line);
    const inputs = Array.from({ length: requests }, () => prompt(promptTokens, vocab));
    const start = performance.now();
    let first = 0;
    let last = start;
    let tokens = 0;
    await generate(inputs, maxTokens, (count = 1) => {
      last = performance.now();
      tokens += count;
      // Decoding is timed from when every request has its first token.
      if (tokens <= requests) first = last;
    });
    say({ prefillMs: first - start, decodeMs: last - first, decoded: tokens - requests });
  }
}
