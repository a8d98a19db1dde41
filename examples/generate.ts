// Several prompts at once: they share the engine's steps, and each has its own sampling parameters.
import { LLM } from 'typert';

await using llm = await LLM.load('models/storyteller-7m');

const outputs = await llm.generate(
  ['Once upon a time', { prompt: 'The little fox' }, { messages: [{ role: 'user', content: 'A story about a drum' }] }],
  [
    { maxTokens: 24 }, // no sampling field is set: greedy
    { maxTokens: 24, temperature: 0.8, topP: 0.9, seed: 7 },
    { maxTokens: 24, n: 2, topK: 20, seed: 1, stop: ['\n'] },
  ],
);
for (const { promptTokenIds, outputs: sequences } of outputs) {
  for (const { index, text, tokenIds, finishReason } of sequences)
    console.log(`[${promptTokenIds.length} → ${tokenIds.length} tokens, ${finishReason}] ${index}: ${text.trim()}`);
}
