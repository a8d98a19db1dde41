// Reads a reference case: what Hugging Face transformers computed from a tiny checkpoint.
import { fileURLToPath } from 'node:url';
import { toFloat32 } from '../../src/define/checkpoint/cast.ts';
import { openSafetensors } from '../../src/define/checkpoint/safetensors.ts';

export interface GoldenPrompt {
  readonly ids: number[];
  /** [length][vocab] */
  readonly logits: Float32Array[];
  readonly greedy: number[];
  /** The four best sequences of a beam search of width 4, and their sums of log-probabilities. */
  readonly beam4: number[][];
  readonly beam4Scores: number[];
}

export function goldenPath(name: string): string {
  return fileURLToPath(new URL(`../goldens/${name}`, import.meta.url));
}

function rows(values: readonly number[], count: number): number[][] {
  const width = values.length / count;
  return Array.from({ length: count }, (_, i) => values.slice(i * width, (i + 1) * width));
}

export function readGolden(name: string): { prompts: GoldenPrompt[]; range: number } {
  using file = openSafetensors(`${goldenPath(name)}/golden.safetensors`);
  const floats = (key: string) => {
    const info = file.tensors.get(key)!;
    return toFloat32({ ...info, data: file.read(key) });
  };
  const prompts: GoldenPrompt[] = [];
  let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (let j = 0; file.tensors.has(`prompt${j}.input_ids`); j++) {
    const vocab = file.tensors.get(`prompt${j}.logits`)!.shape.at(-1)!;
    const logits = floats(`prompt${j}.logits`);
    for (const value of logits) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    prompts.push({
      ids: [...floats(`prompt${j}.input_ids`)],
      greedy: [...floats(`prompt${j}.greedy`)],
      beam4: rows([...floats(`prompt${j}.beam4`)], 4),
      beam4Scores: [...floats(`prompt${j}.beam4_scores`)],
      logits: Array.from({ length: logits.length / vocab }, (_, i) => logits.subarray(i * vocab, (i + 1) * vocab)),
    });
  }
  return { prompts, range: high - low };
}
