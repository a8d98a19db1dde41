// A GGUF file as a checkpoint in Hugging Face's words: config, tensor names and tokenizer files all come from the one file.
import { CheckpointError } from '../../base/errors.ts';
import { openGguf } from './gguf.ts';
import { ggufConfig } from './gguf-config.ts';
import { huggingFaceTensors } from './gguf-names.ts';
import { ggufAssets } from './gguf-tokenizer.ts';
import { makeCheckpoint } from './huggingface.ts';
import type { Checkpoint } from './tensors.ts';

/** Opens a GGUF file as a checkpoint. Throws CheckpointError, or ConfigError when its metadata does not describe a known model. */
export function openGgufCheckpoint(path: string, { cacheDir }: { cacheDir: string }): Checkpoint {
  const file = openGguf(path);
  try {
    const parts = file.metadata.get('split.count');
    if (typeof parts === 'number' && parts > 1) {
      throw new CheckpointError('is one part of several', {
        where: path,
        expected: 'a GGUF in one file',
        got: `a part of ${parts}`,
        remedy: 'Merge the parts with llama-gguf-split --merge',
      });
    }
    const { config, modelType, heads, kvHeads } = ggufConfig(file);
    const tensors = huggingFaceTensors(file, modelType, { heads, kvHeads });
    // A large SentencePiece vocabulary takes seconds to turn into merges; metadata stays in memory after the file is closed.
    const assets = (): Map<string, string> => ggufAssets(file);
    return makeCheckpoint({ format: 'gguf', path, config, tensors, assets, files: [path], cacheDir });
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}
