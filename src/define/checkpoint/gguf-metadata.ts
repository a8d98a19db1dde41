// Typed access to a GGUF's metadata, with errors that name the key.
import { ConfigError } from '../../base/errors.ts';
import type { GgufSource, GgufValue } from './gguf.ts';
import { kindOf } from './json.ts';

/** The metadata of one file, typed access with the architecture's prefix. */
export class GgufMetadata {
  readonly #file: GgufSource;
  readonly architecture: string;

  constructor(file: GgufSource) {
    this.#file = file;
    const architecture = file.metadata.get('general.architecture');
    if (typeof architecture !== 'string')
      this.refuse('general.architecture', 'the name of an architecture', architecture);
    this.architecture = architecture as string;
  }

  refuse(key: string, expected: string, value: GgufValue | undefined): never {
    throw new ConfigError(value === undefined ? 'metadata is missing' : 'metadata is of another type', {
      where: `${this.#file.label}: ${key}`,
      expected,
      got: value === undefined ? 'nothing' : kindOf(typeof value === 'bigint' ? String(value) : value),
      remedy: 'The file was not written as llama.cpp writes them: convert the model again with a recent llama.cpp',
    });
  }

  get(key: string): GgufValue | undefined {
    return this.#file.metadata.get(key);
  }

  own(key: string): GgufValue | undefined {
    return this.get(`${this.architecture}.${key}`);
  }

  /** A finite number under the architecture's prefix; an array (a value per layer) must hold one value throughout. */
  number(key: string): number | undefined {
    const value = this.own(key);
    if (value === undefined) return undefined;
    const one =
      Array.isArray(value) && value.length > 0 && value.every((item) => item === value[0])
        ? (value[0] as GgufValue)
        : value;
    if (typeof one !== 'number' || !Number.isFinite(one))
      this.refuse(`${this.architecture}.${key}`, 'one number', value);
    return one as number;
  }

  /** A positive integer that must be there. */
  size(key: string): number {
    const value = this.number(key);
    if (value === undefined || !Number.isInteger(value) || value < 1 || value > 2 ** 31) {
      this.refuse(`${this.architecture}.${key}`, 'a positive integer', this.own(key));
    }
    return value as number;
  }

  optionalSize(key: string): number | undefined {
    return this.own(key) === undefined ? undefined : this.size(key);
  }

  /** float32 as the shortest decimal that reads back to it: 1e-5 was written as 0.000009999999747. */
  decimal(key: string): number | undefined {
    const value = this.number(key);
    return value === undefined ? undefined : shortest(value);
  }

  text(key: string): string | undefined {
    const value = this.get(key);
    return typeof value === 'string' ? value : undefined;
  }
}

/** The shortest decimal that reads back to the same float32. */
export function shortest(value: number): number {
  if (Number.isInteger(value)) return value;
  for (let digits = 1; digits < 17; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return value;
}
