// TypeRT as a peer: LLM.load on the GGUF file, tokens in and out through generateAsync.
import { LLM } from 'typert';
import { serve } from './worker.mjs';

const { path, cacheDir, vocab, requests, context } = JSON.parse(process.argv[2]);
const llm = await LLM.load(path, {
  target: 'cpu',
  cacheDir,
  skipTokenizerInit: true,
  maxBatchSize: requests,
  maxNumTokens: 512,
  maxSeqLen: context,
  kvCacheConfig: { maxTokens: context * requests, enableBlockReuse: false },
});
await serve(vocab, async (prompts, maxTokens, onToken) => {
  await Promise.all(
    prompts.map(async (promptTokenIds) => {
      for await (const { outputs } of llm.generateAsync(
        { promptTokenIds },
        { maxTokens, temperature: 0, ignoreEos: true },
      )) {
        const { length } = outputs[0].tokenIdsDelta;
        if (length > 0) onToken(length);
      }
    }),
  );
});
await llm[Symbol.asyncDispose]();
process.exit(0);
