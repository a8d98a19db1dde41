// `typert bench throughput` and `typert bench latency`: how fast an engine serves, in trtllm-bench's terms.
import { writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import { UsageError } from '../../base/errors.ts';
import { LLM } from '../../llm/llm.ts';
import { type BenchRequest, randomDataset, readDataset } from '../bench/dataset.ts';
import { measure } from '../bench/measure.ts';
import { makeReport, printReport } from '../bench/report.ts';
import {
  type BuildFlags,
  buildOptions,
  bundledModel,
  integer,
  type RuntimeFlags,
  runtimeOptions,
  sourceOptions,
  toLLMOptions,
} from '../options.ts';
import { terminalProgress } from '../terminal.ts';

interface Flags extends BuildFlags, RuntimeFlags {
  readonly dataset?: string;
  readonly numRequests: number;
  readonly inputLen: number;
  readonly outputLen: number;
  readonly concurrency?: number;
  readonly warmup: number;
  readonly reportJson?: string;
  readonly json?: boolean;
}

function requestsOf(flags: Flags, { vocabSize, maxSeqLen }: LLM['limits']): BenchRequest[] {
  if (flags.dataset !== undefined) return readDataset(flags.dataset).slice(0, flags.numRequests);
  if (flags.inputLen + flags.outputLen > maxSeqLen)
    throw new UsageError('requests are longer than the engine allows', {
      where: '--input-len, --output-len',
      expected: `together at most ${maxSeqLen}`,
      got: String(flags.inputLen + flags.outputLen),
      remedy: 'Give a greater --max-seq-len',
    });
  return randomDataset(flags.numRequests, flags.inputLen, flags.outputLen, vocabSize);
}

async function bench(model: string, flags: Flags, concurrency: number): Promise<void> {
  const { progress, finish } = terminalProgress();
  try {
    // Without texts nothing is spent on a tokenizer, and models without one can be timed.
    const skipTokenizerInit = flags.dataset === undefined;
    await using llm = await LLM.load(model, { ...toLLMOptions(flags), skipTokenizerInit, progress });
    const requests = requestsOf(flags, llm.limits);
    if (flags.warmup > 0) await measure(llm, requests.slice(0, flags.warmup), flags.warmup, 'warmup', () => {});
    const measured = await measure(llm, requests, concurrency, 'measured', progress);
    finish();
    const { maxBatchSize, maxNumTokens, maxSeqLen, numBlocks } = llm.limits;
    const { target, dtype } = llm.config.build_config;
    const report = makeReport(measured, {
      model,
      backend: 'TypeRT',
      target,
      dtype,
      maxBatchSize,
      maxNumTokens,
      maxSeqLen,
      kvCacheBlocks: numBlocks,
      concurrency: Math.min(concurrency, requests.length),
    });
    const json = `${JSON.stringify(report, null, 2)}\n`;
    if (flags.reportJson !== undefined) writeFileSync(flags.reportJson, json);
    process.stdout.write(flags.json ? json : printReport(report));
  } finally {
    finish();
  }
}

function addKind(parent: Command, name: string, description: string, defaults: { requests: number; warmup: number }) {
  const command = parent
    .command(name)
    .description(description)
    .argument('[model]', 'anything `typert run` takes; with --load-format dummy a config.json is enough', bundledModel)
    .option('--dataset <file>', "JSON lines {task_id, prompt or input_ids, output_tokens}; '-' for standard input")
    .option('--num-requests <n>', 'requests at most', integer, defaults.requests)
    .option('--input-len <n>', 'random tokens of each prompt, without a dataset', integer, 128)
    .option('--output-len <n>', 'tokens to generate for each, without a dataset', integer, 128)
    .option('--warmup <n>', 'requests before the measured ones', integer, defaults.warmup)
    .option('--report-json <file>', 'writes the report there as well')
    .option('--json', 'print the report as JSON');
  return runtimeOptions(buildOptions(sourceOptions(command)));
}

export function addBench(program: Command): void {
  const parent = program
    .command('bench')
    .summary('time an engine')
    .description('Times an engine: throughput with all requests at once, or latency with one after the other.');
  addKind(parent, 'throughput', 'All requests at once (or --concurrency): how many tokens a second.', {
    requests: 256,
    warmup: 2,
  })
    .option('--concurrency <n>', 'requests open at once (default: all)', integer)
    .action(async (model: string, flags: Flags) => await bench(model, flags, flags.concurrency ?? flags.numRequests));
  addKind(parent, 'latency', 'One request after the other: how soon tokens come.', { requests: 20, warmup: 2 })
    .option('--concurrency <n>', 'requests open at once', integer, 1)
    .action(async (model: string, flags: Flags) => await bench(model, flags, flags.concurrency ?? 1));
}
