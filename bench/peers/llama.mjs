// llama.cpp as a peer: node-llama-cpp from the folder it was installed in, one sequence a request.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { serve } from './worker.mjs';

const { path, folder, vocab, requests, threads, context: length } = JSON.parse(process.argv[2]);
const { getLlama } = await import(pathToFileURL(createRequire(`${folder}/`).resolve('node-llama-cpp')).href);
const llama = await getLlama({
  gpu: false,
  build: 'never',
  skipDownload: true,
  maxThreads: threads,
  logLevel: 'error',
});
const model = await llama.loadModel({ modelPath: path, gpuLayers: 0 });
const context = await model.createContext({ contextSize: length, sequences: requests, batchSize: 512, threads });
const sequences = Array.from({ length: requests }, () => context.getSequence());
await serve(vocab, async (prompts, maxTokens, onToken) => {
  await Promise.all(
    prompts.map(async (tokens, i) => {
      const sequence = sequences[i];
      await sequence.clearHistory();
      let left = maxTokens;
      for await (const _ of sequence.evaluate(tokens, { temperature: 0, yieldEogToken: true })) {
        onToken();
        if (--left === 0) break;
      }
    }),
  );
});
process.exit(0);
