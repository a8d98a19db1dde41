// Requests before the public API: eight at once, of which one's logits processor throws and one is cancelled; then the device is lost when
// FAKE_CUDA_FAIL says so. argv: engine folder. Prints what became of each, and what is open at the end.
import { openResources } from '../../../dist/base/dispose.js';
import { LLM } from '../../../dist/index.js';

const settled = async (work) => {
  try {
    return { tokens: (await work).length };
  } catch (error) {
    return { error: error.constructor.name, message: error.message, cause: error.cause?.constructor.name };
  }
};

let results;
let loading;
try {
  const llm = await LLM.load(process.argv[2], { target: 'cuda', kvCacheConfig: { maxTokens: 4096 } });
  const collect = async (samplingParams, cancel = false) => {
    const tokens = [];
    for await (const part of llm.generateAsync('Once upon a time', {
      maxTokens: 24,
      ignoreEos: true,
      ...samplingParams,
    })) {
      tokens.push(...part.outputs[0].tokenIds.slice(tokens.length));
      if (cancel && tokens.length > 2) break;
    }
    return tokens;
  };
  const throwing = () => {
    throw new RangeError('this processor fails');
  };
  results = await Promise.all(
    Array.from({ length: 8 }, (_, i) => settled(collect(i === 3 ? { logitsProcessor: throwing } : {}, i === 5))),
  );
  await llm[Symbol.asyncDispose]();
} catch (error) {
  loading = { error: error.constructor.name, message: error.message };
}
console.log(JSON.stringify({ results, loading, open: openResources() }));
process.exit(0);
