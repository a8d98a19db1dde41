// Typed reading of a config.json: every field is checked as it is read, and an error names the file, the field, what was expected and what came.
import { type FloatDType, isFloatDType } from '../../base/dtype.ts';
import { ConfigError, show } from '../../base/errors.ts';
import type { Activation } from '../graph/ops.ts';

/** A JSON object. */
type Json = Readonly<Record<string, unknown>>;

const activations: Readonly<Record<string, Activation>> = {
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_fast: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
  quick_gelu: 'quick_gelu',
  relu: 'relu',
  relu2: 'relu2',
  sigmoid: 'sigmoid',
  tanh: 'tanh',
};

/** Largest size a config may name: beyond it nothing could be allocated, so it is a mistake. */
const sizeLimit = 2 ** 31 - 1;

/** The fields of a config.json, or of an object in it. Every reader throws ConfigError when the field is missing and has no fallback, or is wrong. */
export class Fields {
  readonly json: Json;
  readonly where: string;

  /** `where` names the file, and the path inside it when the object is nested. */
  constructor(json: Json, where: string) {
    this.json = json;
    this.where = where;
  }

  #fail(name: string, expected: string): never {
    const value = this.json[name];
    throw new ConfigError(value === undefined ? 'missing field' : 'wrong field', {
      where: `${this.where}: ${name}`,
      expected,
      got: value === undefined ? 'nothing' : show(value),
      remedy: 'Check that config.json is complete and belongs to this checkpoint',
    });
  }

  /** True when the field is there and not null. */
  has(name: string): boolean {
    return this.json[name] !== undefined && this.json[name] !== null;
  }

  #number(name: string, expected: string, valid: (value: number) => boolean, fallback: number | undefined): number {
    const value = this.json[name];
    if (value === undefined || value === null) return fallback ?? this.#fail(name, expected);
    if (typeof value !== 'number' || !valid(value)) return this.#fail(name, expected);
    return value;
  }

  /** A positive integer. */
  size(name: string, fallback?: number): number {
    return this.#number(
      name,
      'a positive integer',
      (value) => Number.isInteger(value) && value > 0 && value <= sizeLimit,
      fallback,
    );
  }

  /** An integer from 0. */
  count(name: string, fallback?: number): number {
    return this.#number(
      name,
      'an integer from 0',
      (value) => Number.isInteger(value) && value >= 0 && value <= sizeLimit,
      fallback,
    );
  }

  /** A finite number. */
  number(name: string, fallback?: number): number {
    return this.#number(name, 'a finite number', Number.isFinite, fallback);
  }

  /** A number above 0. */
  positive(name: string, fallback?: number): number {
    return this.#number(name, 'a positive number', (value) => Number.isFinite(value) && value > 0, fallback);
  }

  /** What `read` gives, or undefined when the field is absent or null. */
  optional<T>(name: string, read: (fields: this, name: string) => T): T | undefined {
    return this.has(name) ? read(this, name) : undefined;
  }

  /** True or false. */
  flag(name: string, fallback?: boolean): boolean {
    const value = this.json[name] ?? fallback;
    return typeof value === 'boolean' ? value : this.#fail(name, 'true or false');
  }

  /** A string. */
  text(name: string, fallback?: string): string {
    const value = this.json[name] ?? fallback;
    return typeof value === 'string' ? value : this.#fail(name, 'a string');
  }

  /** One of the allowed strings. */
  oneOf<T extends string>(name: string, allowed: readonly T[], fallback?: T): T {
    const value = this.json[name] ?? fallback;
    return allowed.find((item) => item === value) ?? this.#fail(name, `one of ${allowed.join(', ')}`);
  }

  /** A list of finite numbers. */
  numbers(name: string): number[] {
    const value = this.json[name];
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'number' && Number.isFinite(item)))
      return this.#fail(name, 'a list of numbers');
    return value as number[];
  }

  /** A list of strings. */
  texts(name: string): string[] {
    const value = this.json[name];
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'string'))
      return this.#fail(name, 'a list of strings');
    return value as string[];
  }

  /** A nested object. */
  object(name: string): Fields {
    const value = this.json[name];
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return this.#fail(name, 'an object');
    return new Fields(value as Json, `${this.where}: ${name}`);
  }

  /** An activation in Hugging Face's words, from the first of these fields that is there. */
  activation(...names: string[]): Activation {
    const name = names.find((candidate) => this.has(candidate)) ?? names[0]!;
    return activations[this.text(name)] ?? this.#fail(name, `one of ${Object.keys(activations).join(', ')}`);
  }

  /** `dtype` (transformers 5) or `torch_dtype` (4); float32 when absent. */
  dtype(): FloatDType {
    const name = this.has('dtype') ? 'dtype' : 'torch_dtype';
    const value = this.text(name, 'float32').replace('torch.', '');
    return isFloatDType(value) ? value : this.#fail(name, 'float32, bfloat16 or float16');
  }

  /** Refuses a field that changes the model in a way that is not built. */
  require(name: string, allowed: (value: unknown) => boolean, expected: string): void {
    if (this.has(name) && !allowed(this.json[name])) this.#fail(name, expected);
  }
}
