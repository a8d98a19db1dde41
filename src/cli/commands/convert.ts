// `typert convert`: any checkpoint becomes a TypeRT checkpoint, in TensorRT-LLM's layout.
import { type Command, Option } from 'commander';
import type { FloatDType } from '../../base/dtype.ts';
import { readEnv } from '../../base/env.ts';
import { openCheckpoint } from '../../define/checkpoint/open.ts';
import { bindModel, identify } from '../../define/models/bind.ts';
import { writeTypertCheckpoint } from '../../define/models/typert-checkpoint.ts';
import { locate, sourceOptions } from '../options.ts';
import { formatSeconds, terminalProgress } from '../terminal.ts';

interface Flags {
  readonly output: string;
  readonly dtype: FloatDType | 'auto';
  readonly revision?: string;
  readonly token?: string;
}

async function convert(model: string, flags: Flags): Promise<void> {
  const started = performance.now();
  const { progress, finish } = terminalProgress();
  try {
    const path = await locate(model, flags, progress);
    using checkpoint = await openCheckpoint(path, { cacheDir: readEnv().cacheDir });
    const known = identify(checkpoint);
    const dtype = flags.dtype === 'auto' ? known.config.dtype : flags.dtype;
    const bound = bindModel(known, checkpoint, known.config.maxPositionEmbeddings, () => dtype);
    await writeTypertCheckpoint({
      model: bound,
      config: known.config,
      checkpoint,
      dtype,
      outputDir: flags.output,
      progress,
    });
    finish();
    process.stdout.write(
      `${known.config.architecture}, ${dtype}, in ${formatSeconds(performance.now() - started)}\n${flags.output}\n`,
    );
  } finally {
    finish();
  }
}

export function addConvert(program: Command): void {
  const command = program
    .command('convert')
    .summary('write a checkpoint in TensorRT-LLM’s layout')
    .description(
      'Writes a TypeRT checkpoint: config.json and rank0.safetensors with TensorRT-LLM’s field and tensor names.',
    )
    .argument('<model>', 'checkpoint folder, GGUF file or Hugging Face id')
    .requiredOption('-o, --output <dir>', 'folder of the checkpoint; one that is there is replaced on success')
    .addOption(
      new Option('--dtype <dtype>', 'dtype of the weights')
        .choices(['auto', 'float32', 'bfloat16', 'float16'])
        .default('auto'),
    );
  sourceOptions(command).action(async (model: string, flags: Flags) => await convert(model, flags));
}
