// The nouns of the checkpoint room: tensors by name in files, and a checkpoint as the rest of TypeRT sees it, whatever its format.
import type { DType } from '../../base/dtype.ts';

/** A tensor as its file describes it. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: DType;
  /** Row-major, slowest axis first (as in PyTorch and safetensors; GGUF's order is reversed on reading). */
  readonly shape: readonly number[];
  /** Bytes as stored. */
  readonly bytes: number;
}

/** Tensors by name, read by position: nothing is held in memory but what `read` returns. */
export interface TensorSource extends Disposable {
  /** The file or folder, for messages. */
  readonly label: string;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Bytes [`offset`, `offset + length`) of the stored tensor; all of it by default. Throws CheckpointError when it is not there or cannot be read. */
  read(name: string, offset?: number, length?: number): Uint8Array;
}

/** A tensor in memory, as stored (block formats stay packed). */
export interface TensorData {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/** Which kind of checkpoint was opened. */
export type CheckpointFormat = 'huggingface' | 'gguf' | 'typert' | 'dummy';

/** An opened checkpoint: a config in Hugging Face's words, tensors under Hugging Face's names (GGUF's are translated), and the files for text. */
export interface Checkpoint extends Disposable {
  readonly format: CheckpointFormat;
  /** Folder or file that was opened. */
  readonly path: string;
  /** config.json as parsed (of a TypeRT checkpoint: TensorRT-LLM's words). Not yet checked: each model parses what it needs. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly tensors: TensorSource;
  /**
   * Text assets to carry into the engine: file name (tokenizer.json, tokenizer_config.json, generation_config.json, chat_template.jinja, special_tokens_map.json) → content.
   * GGUF's are made from its metadata.
   */
  readonly assets: ReadonlyMap<string, string>;
  /** SHA-256 (hex) over config, assets, tensor headers and tensor contents: the key under which built engines are cached. */
  contentHash(): Promise<string>;
}
