// `typert build`: a checkpoint becomes an engine folder.
import type { Command } from 'commander';
import { readEnv } from '../../base/env.ts';
import { buildEngine } from '../../compile/build.ts';
import { openCheckpoint } from '../../define/checkpoint/open.ts';
import { findTarget } from '../../targets/index.ts';
import { type BuildFlags, buildOptions, locate, sourceOptions, toBuildConfig } from '../options.ts';
import { adviseSpeed, formatBytes, formatSeconds, terminalProgress } from '../terminal.ts';

interface Flags extends BuildFlags {
  readonly output: string;
  readonly json?: boolean;
}

async function build(model: string, flags: Flags): Promise<void> {
  const started = performance.now();
  const { progress, finish } = terminalProgress();
  try {
    const path = await locate(model, flags, progress);
    const { loadFormat = 'auto' } = flags;
    using checkpoint = await openCheckpoint(path, { cacheDir: readEnv().cacheDir, loadFormat });
    const target = findTarget(flags.target, 'build');
    const {
      bytes,
      plan,
      model: known,
    } = await buildEngine({ checkpoint, target, engineDir: flags.output, build: toBuildConfig(flags), progress });
    finish();
    adviseSpeed(flags.target);
    const milliseconds = performance.now() - started;
    const launches = plan.phases.forward.length + plan.phases.sample.length;
    if (flags.json)
      process.stdout.write(
        `${JSON.stringify({ engine: flags.output, architecture: known.config.architecture, target: target.name, dtype: plan.dtype, bytes, launches, seconds: milliseconds / 1000 })}\n`,
      );
    else
      process.stdout.write(
        `${known.config.architecture} for ${target.name}, ${plan.dtype}: ${launches} launches, ${formatBytes(bytes)} in ${formatSeconds(milliseconds)}\n${flags.output}\n`,
      );
  } finally {
    finish();
  }
}

export function addBuild(program: Command): void {
  const command = program
    .command('build')
    .summary('compile a checkpoint into an engine')
    .description(
      'Compiles a checkpoint (Hugging Face folder or id, TypeRT checkpoint, GGUF file) into an engine folder.',
    )
    .argument('<model>', 'checkpoint folder, GGUF file or Hugging Face id')
    .requiredOption('-o, --output <dir>', 'folder of the engine; one that is there is replaced when the build succeeds')
    .option('--json', 'print the result as JSON');
  buildOptions(sourceOptions(command)).action(async (model: string, flags: Flags) => await build(model, flags));
}
