// `typert triton-repo`: a model repository with which NVIDIA's Triton Inference Server asks a running TypeRT.
import type { Command } from 'commander';
import { integer } from '../options.ts';

interface Flags {
  readonly url: string;
  readonly model?: readonly string[];
  readonly maxBatchSize: number;
  readonly decoupled: boolean;
  readonly timeout: number;
}

export function addTritonRepo(program: Command): void {
  program
    .command('triton-repo')
    .summary('write a model repository for NVIDIA’s Triton')
    .description(
      'Writes a model repository (config.pbtxt and a Python backend) with which NVIDIA’s Triton Inference Server asks a running `typert serve`.',
    )
    .argument('<dir>', 'folder of the repository: empty, new, or written by this command before')
    .option('--url <url>', 'the running server, as Triton reaches it', 'http://127.0.0.1:8000')
    .option('--model <name...>', 'served models to show by their own names, beside ensemble and tensorrt_llm')
    .option('--max-batch-size <n>', 'rows of one request at most', integer, 64)
    .option('--no-decoupled', 'one response a request: for clients that use Triton’s HTTP infer')
    .option('--timeout <s>', 'seconds that TypeRT may be silent', integer, 600)
    .addHelpText(
      'after',
      `
Example:
  typert serve engine --host 0.0.0.0
  typert triton-repo repository --url http://typert:8000
  tritonserver --model-repository repository      (TYPERT_API_KEY in its environment when the server has keys)`,
    )
    .action(async (dir: string, { model: models = [], ...flags }: Flags) => {
      const { writeTritonRepo } = await import('../../serve/triton-repo/write.ts');
      const names = writeTritonRepo({ dir, models, ...flags });
      process.stdout.write(`${names.join(', ')}\n${dir}\n`);
    });
}
