// The file behind `serve --config`: options by their long names, and a list of models. The command line has the last word.
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { load } from 'js-yaml';
import { z } from 'zod';
import { nearest, show, UsageError } from '../base/errors.ts';

const model = z.strictObject({
  model: z.string().min(1),
  name: z.string().min(1).optional(),
  target: z.enum(['auto', 'cuda', 'cpu', 'reference']).optional(),
  dtype: z.enum(['auto', 'float32', 'bfloat16', 'float16']).optional(),
  maxBatchSize: z.int().positive().optional(),
  maxNumTokens: z.int().positive().optional(),
  maxSeqLen: z.int().positive().optional(),
  tokensPerBlock: z.int().positive().optional(),
  kvCacheTokens: z.int().positive().optional(),
  kvCacheFreeGpuMemFraction: z.number().gt(0).max(1).optional(),
  device: z.int().min(0).optional(),
  gpuMemory: z.number().gt(0).optional(),
  revision: z.string().optional(),
  toolParser: z.string().optional(),
  reasoningParser: z.string().optional(),
});

/** A model of the file, with what it overrides. */
export type ConfiguredModel = {
  readonly [K in keyof z.infer<typeof model>]: Exclude<z.infer<typeof model>[K], undefined>;
} & { readonly model: string };

/** max-batch-size, max_batch_size and maxBatchSize are one name. */
function camel(name: string): string {
  return name.replace(/[-_]([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function camelKeys(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [camel(key), entry]));
}

function read(file: string): Record<string, unknown> {
  let parsed: unknown;
  try {
    parsed = load(readFileSync(file, 'utf8'), { filename: file });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message.split('\n')[0] : show(cause);
    throw new UsageError(`cannot be read (${why})`, { where: `--config ${file}`, cause });
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
    throw new UsageError('not a table of options', { where: `--config ${file}`, got: show(parsed) });
  return camelKeys(parsed) as Record<string, unknown>;
}

/** Reads the file that `--config` names into the command's options, unless the command line set them. Gives its models. Throws UsageError. */
export function applyConfigFile(command: Command): ConfiguredModel[] {
  const file = command.opts<{ config?: string }>().config;
  if (file === undefined) return [];
  const { models = [], ...options } = read(file);
  const known = new Map(command.options.map((option) => [option.attributeName(), option]));
  for (const [name, value] of Object.entries(options)) {
    const option = known.get(name);
    const where = `--config ${file}: ${name}`;
    if (option === undefined || name === 'config') {
      const near = nearest(name, [...known.keys(), 'models'], 1)[0];
      throw new UsageError('unknown option', {
        where,
        ...(near === undefined ? {} : { remedy: `Did you mean ${near}?` }),
      });
    }
    if (command.getOptionValueSource(name) === 'cli') continue;
    if (option.argChoices !== undefined && !option.argChoices.includes(String(value)))
      throw new UsageError('not one of the choices', {
        where,
        expected: option.argChoices.join(', '),
        got: show(value),
      });
    let parsed: unknown;
    try {
      parsed = option.variadic
        ? [value].flat().map(String)
        : option.parseArg === undefined
          ? String(value)
          : option.parseArg(String(value), undefined);
    } catch (cause) {
      throw new UsageError(cause instanceof Error ? cause.message : 'not acceptable', {
        where,
        got: show(value),
        cause,
      });
    }
    command.setOptionValueWithSource(name, parsed, 'config');
  }
  const list = z.array(z.preprocess(camelKeys, model)).safeParse(models);
  if (!list.success) {
    const issue = list.error.issues[0]!;
    throw new UsageError(issue.message, { where: `--config ${file}: models.${issue.path.join('.')}` });
  }
  return list.data as ConfiguredModel[];
}
