// llama.cpp behind HTTP: node-llama-cpp's batched sequences, streamed as OpenAI's completions are. Tells its port on standard output.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const { path, folder, clients, threads, context: length } = JSON.parse(process.argv[2]);
const { getLlama } = await import(pathToFileURL(createRequire(`${folder}/`).resolve('node-llama-cpp')).href);
const llama = await getLlama({
  gpu: false,
  build: 'never',
  skipDownload: true,
  maxThreads: threads,
  logLevel: 'error',
});
const model = await llama.loadModel({ modelPath: path, gpuLayers: 0 });
const context = await model.createContext({ contextSize: length, sequences: clients, batchSize: 512, threads });
const free = Array.from({ length: clients }, () => context.getSequence());

async function complete({ prompt, max_tokens: left }, response) {
  const sequence = free.pop();
  try {
    await sequence.clearHistory();
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const tokens = model.tokenize(prompt);
    for await (const token of sequence.evaluate(tokens, { temperature: 0, yieldEogToken: true })) {
      const text = model.detokenize([token], true);
      response.write(`data: ${JSON.stringify({ choices: [{ index: 0, text, finish_reason: null }] })}\n\n`);
      if (--left === 0) break;
    }
    response.end('data: [DONE]\n\n');
  } finally {
    free.push(sequence);
  }
}

const server = createServer((request, response) => {
  let body = '';
  request.on('data', (chunk) => {
    body += chunk;
  });
  request.on('end', () => complete(JSON.parse(body), response).catch((error) => response.destroy(error)));
});
server.listen(0, '127.0.0.1', () => process.stdout.write(`at http://127.0.0.1:${server.address().port} \n`));
process.on('SIGTERM', () => process.exit(0));
