// Text as it comes, and two ways to end early: leaving the loop, and an AbortSignal.
import { LLM } from 'typert';

await using llm = await LLM.load('models/storyteller-7m');

// A part's text never ends inside a character; leaving the loop cancels the request.
let words = 0;
for await (const part of llm.generateAsync('Once upon a time', { maxTokens: 200, temperature: 0 })) {
  process.stdout.write(part.textDelta);
  words += part.textDelta.split(' ').length - 1;
  if (words > 20) break;
}
process.stdout.write(' …\n');

// Waiting on an aborted request throws the signal's reason.
const impatient = new AbortController();
try {
  for await (const part of llm.generateAsync('The moon', { maxTokens: 200 }, { signal: impatient.signal })) {
    process.stdout.write(part.textDelta);
    if (part.outputs[0]!.tokenIds.length >= 8) impatient.abort(new Error('that is enough'));
  }
} catch (error) {
  console.log(`\n(${(error as Error).message})`);
}
