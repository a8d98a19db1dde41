// `typert run`: one prompt, or a chat when none is given on a terminal.
import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import { UsageError } from '../../base/errors.ts';
import type { ChatMessage, PromptInput } from '../../llm/inputs.ts';
import { LLM } from '../../llm/llm.ts';
import type { StreamedRequestOutput } from '../../llm/outputs.ts';
import {
  type BuildFlags,
  buildOptions,
  bundledModel,
  type RuntimeFlags,
  runtimeOptions,
  type SamplingFlags,
  samplingOptions,
  sourceOptions,
  toLLMOptions,
  toSamplingParams,
} from '../options.ts';
import { adviseSpeed, formatSeconds, terminalProgress } from '../terminal.ts';

interface RunFlags extends BuildFlags, RuntimeFlags, SamplingFlags {
  readonly raw?: boolean;
  readonly system?: string;
  readonly json?: boolean;
  readonly stats?: boolean;
}

/** Text from a pipe, or undefined on a terminal. */
async function readStdin(): Promise<string | undefined> {
  if (process.stdin.isTTY) return undefined;
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  const text = Buffer.concat(chunks).toString('utf8').trim();
  return text === '' ? undefined : text;
}

/** Writes and waits when the reader is slow. */
async function write(text: string): Promise<void> {
  if (!process.stdout.write(text)) await new Promise<void>((resolve) => process.stdout.once('drain', resolve));
}

export class Conversation {
  readonly #llm: LLM;
  readonly #flags: RunFlags;
  readonly #messages: ChatMessage[] = [];

  constructor(llm: LLM, flags: RunFlags) {
    this.#llm = llm;
    this.#flags = flags;
    if (flags.system !== undefined) this.#messages.push({ role: 'system', content: flags.system });
  }

  #input(text: string): PromptInput {
    if (this.#flags.raw || this.#llm.chatTemplate === undefined) return text;
    this.#messages.push({ role: 'user', content: text });
    return { messages: [...this.#messages] };
  }

  /** Streams the answer to stdout and keeps it for the next turn. Resolves to the last output; undefined when interrupted. */
  async say(
    text: string,
    signal: AbortSignal,
  ): Promise<{ last: StreamedRequestOutput; firstTokenMs: number; totalMs: number } | undefined> {
    const started = performance.now();
    const input = this.#input(text);
    // As many tokens as fit, unless told otherwise: a story is not cut at TensorRT-LLM's default of 32.
    const { promptTokenIds } = this.#llm.encode(input);
    const params = {
      maxTokens: Math.max(1, this.#llm.limits.maxSeqLen - promptTokenIds.length),
      ...toSamplingParams(this.#flags, this.#llm.recommendedSamplingParams),
    };
    let firstTokenMs = 0;
    let last: StreamedRequestOutput | undefined;
    try {
      for await (const part of this.#llm.generateAsync(input, params, { signal })) {
        firstTokenMs ||= performance.now() - started;
        if (!this.#flags.json) await write(part.textDelta);
        last = part;
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    const answer = last?.outputs[0];
    this.#messages.push({ role: 'assistant', content: answer?.text ?? '' });
    return last === undefined || signal.aborted
      ? undefined
      : { last, firstTokenMs, totalMs: performance.now() - started };
  }
}

function statsLine({
  last,
  firstTokenMs,
  totalMs,
}: {
  last: StreamedRequestOutput;
  firstTokenMs: number;
  totalMs: number;
}): string {
  const tokens = last.outputs[0]!.tokenIds.length;
  const rate = tokens > 1 ? ` · ${((tokens - 1) / ((totalMs - firstTokenMs) / 1000)).toFixed(1)} tokens/s` : '';
  return `${last.promptTokenIds.length} prompt tokens · first token after ${formatSeconds(firstTokenMs)} · ${tokens} tokens${rate}\n`;
}

async function chat(llm: LLM, flags: RunFlags): Promise<void> {
  const conversation = new Conversation(llm, flags);
  const lines = createInterface({ input: process.stdin, output: process.stderr, prompt: '> ' });
  process.stderr.write('Type a message; Ctrl-C stops an answer, Ctrl-D ends.\n');
  let answering: AbortController | undefined;
  lines.on('SIGINT', () => {
    if (answering === undefined) lines.close();
    else answering.abort();
  });
  lines.prompt();
  for await (const line of lines) {
    if (line.trim() !== '') {
      answering = new AbortController();
      const answer = await conversation.say(line, answering.signal);
      answering = undefined;
      await write('\n');
      if (flags.stats && answer !== undefined) process.stderr.write(statsLine(answer));
    }
    lines.prompt();
  }
  process.stderr.write('\n');
}

async function run(model: string | undefined, words: readonly string[], flags: RunFlags): Promise<void> {
  const piped = words.length === 0 ? await readStdin() : undefined;
  const prompt = words.length > 0 ? words.join(' ') : piped;
  if (prompt === undefined && (!process.stdin.isTTY || flags.json)) {
    throw new UsageError('no prompt', {
      expected: 'a prompt after the model, or text on standard input',
      remedy: 'On a terminal, without --json, a chat begins instead',
    });
  }
  const { progress, finish } = terminalProgress();
  const interrupt = new AbortController();
  const stop = () => interrupt.abort();
  process.once('SIGINT', stop);
  try {
    const llmOptions = { ...toLLMOptions(flags), progress, signal: interrupt.signal };
    await using llm = await LLM.load(model ?? bundledModel, llmOptions);
    finish();
    adviseSpeed(flags.target);
    if (prompt === undefined) {
      process.removeListener('SIGINT', stop);
      await chat(llm, flags);
      return;
    }
    const answer = await new Conversation(llm, flags).say(prompt, interrupt.signal);
    if (flags.json) {
      // Only the whole is printed: what was new in the last part means nothing here.
      await write(`${JSON.stringify(answer?.last, (key, value) => (key.endsWith('Delta') ? undefined : value))}\n`);
    } else {
      await write('\n');
      if (flags.stats && answer !== undefined) process.stderr.write(statsLine(answer));
    }
    if (interrupt.signal.aborted) process.exitCode = 130;
  } finally {
    finish();
    process.removeListener('SIGINT', stop);
  }
}

export function addRun(program: Command): void {
  const command = program
    .command('run')
    .summary('generate text from a prompt, or chat')
    .description(
      'Generates text. MODEL is a Hugging Face id, a checkpoint folder, a GGUF file or an engine folder; without one, the bundled storyteller runs.',
    )
    .argument('[model]', 'what to run (default: the bundled model)')
    .argument('[prompt...]', 'the prompt (default: standard input, or a chat on a terminal)')
    .option('--raw', 'continue the prompt as it is, without the chat template')
    .option('--system <text>', 'system message of the chat')
    .option('--json', 'print the whole result as JSON')
    .option('--stats', 'tell tokens and times on stderr');
  samplingOptions(runtimeOptions(buildOptions(sourceOptions(command))));
  command
    .addHelpText(
      'after',
      `
Examples:
  typert run                                              chat with the bundled model
  typert run models/storyteller-7m "A story about a fox"  one prompt
  typert run HuggingFaceTB/SmolLM2-135M-Instruct "Hello"  a model from the hub
  typert run model.Q4_1.gguf --temperature 0 < prompt.txt`,
    )
    .action(async (model: string | undefined, words: string[], flags: RunFlags) => await run(model, words, flags));
}
