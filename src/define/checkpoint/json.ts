// JSON that comes from files: bounded in size and depth, decoded strictly, and shown in messages without being printed whole.
import { readFileSync, statSync } from 'node:fs';
import { CheckpointError, ConfigError, type TypertError } from '../../base/errors.ts';

export type JsonObject = Readonly<Record<string, unknown>>;
type ErrorClass = new (what: string, facts?: ConstructorParameters<typeof TypertError>[1]) => TypertError;

/** Deeper than any config or header; recursive code that walks the value later stays far from the stack's end. */
const maxDepth = 64;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What a value is, in a few words that do not grow with it. */
export function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === 'object') return `an object of ${Object.keys(value).length} fields`;
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value);
  return String(value);
}

/** Nesting depth of JSON text, counted without parsing it. */
function depthOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0x22) {
      for (i++; i < text.length && text.charCodeAt(i) !== 0x22; i++) if (text.charCodeAt(i) === 0x5c) i++;
    } else if (code === 0x7b || code === 0x5b) deepest = Math.max(deepest, ++depth);
    else if (code === 0x7d || code === 0x5d) depth--;
  }
  return deepest;
}

export interface JsonPlace {
  /** File (and part of it) that the text came from. */
  readonly where: string;
  readonly remedy: string;
  readonly ErrorClass?: ErrorClass;
}

/** Parses bytes that must be UTF-8 JSON holding one object; throws CheckpointError (or `ErrorClass`). */
export function parseJsonObject(
  bytes: Uint8Array,
  { where, remedy, ErrorClass = CheckpointError }: JsonPlace,
): JsonObject {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new ErrorClass('is not UTF-8', {
      where,
      expected: 'JSON in UTF-8',
      got: 'bytes that are not text',
      remedy,
      cause,
    });
  }
  const depth = depthOf(text);
  if (depth > maxDepth) {
    throw new ErrorClass('is nested too deeply', {
      where,
      expected: `JSON at most ${maxDepth} levels deep`,
      got: `${depth} levels`,
      remedy,
    });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new ErrorClass('is not valid JSON', {
      where,
      expected: 'JSON',
      got: (cause as Error).message,
      remedy,
      cause,
    });
  }
  if (!isObject(value))
    throw new ErrorClass('is not a JSON object', { where, expected: 'a JSON object', got: kindOf(value), remedy });
  return value;
}

/** A text file of at most `limit` bytes; throws CheckpointError (or `ErrorClass`). */
export function readBounded(path: string, limit: number, ErrorClass: ErrorClass = CheckpointError): Uint8Array {
  const remedy = 'Fetch or copy the file again';
  try {
    const { size } = statSync(path);
    if (size > limit) {
      throw new ErrorClass('is too large', {
        where: path,
        expected: `at most ${limit} bytes`,
        got: `${size} bytes`,
        remedy,
      });
    }
    return readFileSync(path);
  } catch (cause) {
    if (cause instanceof ErrorClass) throw cause;
    const code = (cause as NodeJS.ErrnoException).code;
    throw new ErrorClass('cannot be read', {
      where: path,
      expected: 'a readable file',
      got: code ?? String(cause),
      remedy,
      cause,
    });
  }
}

/** Reads a config.json; throws ConfigError. */
export function readConfig(path: string): JsonObject {
  return parseJsonObject(readBounded(path, 16 << 20, ConfigError), {
    where: path,
    remedy: 'Fetch the model again, or mend the file',
    ErrorClass: ConfigError,
  });
}
