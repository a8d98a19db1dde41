// Below the tokenizer: an engine is built and run on token ids. Requests join and leave the running batch at every step.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildEngine, findTarget, openCheckpoint } from 'typert/engine';
import { Executor } from 'typert/executor';

const folder = mkdtempSync(join(tmpdir(), 'typert-executor-'));
const engineDir = join(folder, 'engine');
{
  using checkpoint = await openCheckpoint('models/storyteller-7m');
  const { plan, bytes } = await buildEngine({
    checkpoint,
    target: findTarget('auto'),
    engineDir,
    build: { maxBatchSize: 8, maxSeqLen: 256 },
  });
  console.log(`${plan.phases.forward.length} launches a step, ${bytes} bytes`);
}

{
  await using executor = await Executor.create({
    session: { engineDir, target: 'auto', kvCacheConfig: { maxTokens: 1024 } },
    schedulerConfig: { capacitySchedulerPolicy: 'max_utilization' },
  });
  const handles = [1, 2, 3].map((id) =>
    executor.enqueue({ promptTokenIds: [id, 400 + id], samplingParams: { maxTokens: 8 * id } }),
  );
  for await (const { outputs } of handles[0]!) {
    for (const { tokenIds, finishReason } of outputs)
      console.log(`first: +[${tokenIds}]${finishReason === undefined ? '' : ` ${finishReason}`}`);
  }
  for (const handle of handles) {
    const { requestId, outputs } = await handle.result();
    console.log(
      `request ${requestId}: ${outputs[0]!.tokenIds.length} tokens, log-probability ${outputs[0]!.cumulativeLogprob.toFixed(2)}`,
    );
  }
  const { numIterations, kvCacheStats } = await executor.statistics();
  console.log(`${numIterations} steps, ${kvCacheStats.freeNumBlocks} of ${kvCacheStats.maxNumBlocks} blocks free`);
}
rmSync(folder, { recursive: true });
