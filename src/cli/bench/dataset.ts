// What `typert bench` asks for: requests from a file of JSON lines, as trtllm-bench reads them, or random tokens of fixed lengths.
import { readFileSync } from 'node:fs';
import * as z from 'zod';
import { UsageError } from '../../base/errors.ts';

/** One request of a bench. */
export interface BenchRequest {
  readonly input: string | { readonly promptTokenIds: readonly number[] };
  /** Tokens to generate; end tokens are ignored. */
  readonly outputTokens: number;
}

const line = z
  .looseObject({
    task_id: z.union([z.int(), z.string()]).optional(),
    prompt: z.string().optional(),
    input_ids: z.array(z.int().min(0)).min(1).optional(),
    output_tokens: z.int().positive(),
  })
  .refine(({ prompt, input_ids }) => (prompt === undefined) !== (input_ids === undefined), {
    message: 'expected either prompt or input_ids',
  });

/** Reads a dataset: one object a line, {task_id, prompt or input_ids, output_tokens}. '-' is standard input. Throws UsageError naming file and line. */
export function readDataset(path: string): BenchRequest[] {
  let text: string;
  try {
    text = readFileSync(path === '-' ? 0 : path, 'utf8');
  } catch (cause) {
    throw new UsageError('the dataset cannot be read', { where: path, expected: 'a file of JSON lines', cause });
  }
  const requests = text
    .split('\n')
    .flatMap((raw, i) => (raw.trim() === '' ? [] : [parseLine(raw, `${path}:${i + 1}`)]));
  if (requests.length === 0)
    throw new UsageError('the dataset is empty', { where: path, expected: 'one JSON object a line' });
  return requests;
}

function parseLine(raw: string, where: string): BenchRequest {
  const expected = '{"task_id": …, "prompt" or "input_ids": …, "output_tokens": …}';
  let json: unknown;
  try {
    json = JSON.parse(raw);
  } catch (cause) {
    throw new UsageError('not a line of JSON', { where, expected, got: raw.slice(0, 60), cause });
  }
  const parsed = line.safeParse(json);
  if (!parsed.success)
    throw new UsageError(parsed.error.issues[0]!.message, { where, expected, got: raw.slice(0, 60) });
  const { prompt, input_ids, output_tokens } = parsed.data;
  return { input: prompt ?? { promptTokenIds: input_ids! }, outputTokens: output_tokens };
}

/** `count` requests of random tokens; the same for the same numbers. */
export function randomDataset(count: number, inputLen: number, outputLen: number, vocabSize: number): BenchRequest[] {
  let state = 0x2545f491;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % vocabSize;
  };
  return Array.from({ length: count }, () => ({
    input: { promptTokenIds: Array.from({ length: inputLen }, next) },
    outputTokens: outputLen,
  }));
}
