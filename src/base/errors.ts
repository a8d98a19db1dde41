// Typed errors, one class a layer. A message says what was expected, what came, and what to do about it.

/** Facts that every TypeRT error can carry besides its message. */
export interface ErrorFacts {
  /** The file, tensor, field or argument at fault. */
  readonly where?: string;
  readonly expected?: string;
  readonly got?: string;
  /** What the user can do about it. */
  readonly remedy?: string;
  readonly cause?: unknown;
}

/** Base class of all errors that TypeRT throws on purpose. */
export class TypertError extends Error {
  readonly where: string | undefined;
  readonly expected: string | undefined;
  readonly got: string | undefined;
  readonly remedy: string | undefined;

  constructor(what: string, facts: ErrorFacts = {}) {
    const parts = [facts.where === undefined ? what : `${facts.where}: ${what}`];
    if (facts.expected !== undefined) parts.push(`expected ${facts.expected}`);
    if (facts.got !== undefined) parts.push(`got ${facts.got}`);
    const message = parts.join('; ') + (facts.remedy === undefined ? '' : `. ${facts.remedy}`);
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.name = new.target.name;
    this.where = facts.where;
    this.expected = facts.expected;
    this.got = facts.got;
    this.remedy = facts.remedy;
  }

  /** The message without the remedy, for those who show that apart. */
  get summary(): string {
    return this.remedy === undefined ? this.message : this.message.slice(0, -(this.remedy.length + 2));
  }
}

/** The command line or an option was used wrongly (exit code 2). */
export class UsageError extends TypertError {}
/** A model's config.json is missing, malformed or describes something unsupported. */
export class ConfigError extends TypertError {}
/** A checkpoint's files are missing, damaged or do not hold what the model needs. */
export class CheckpointError extends TypertError {}
/** A model could not be fetched from the hub. */
export class HubError extends TypertError {}
/** A graph breaks a rule of the op table. */
export class GraphError extends TypertError {}
/** The compiler could not turn a graph into a plan. */
export class CompileError extends TypertError {}
/** An engine folder is missing, damaged or of another version. */
export class EngineError extends TypertError {}
/** A device or its driver failed, or is not there. */
export class TargetError extends TypertError {}
/** A request was refused: its parameters or its prompt cannot be served. */
export class RequestError extends TypertError {}
/** The engine's worker died or was disposed while requests were open. */
export class ExecutorError extends TypertError {}

const classes: Record<string, new (what: string, facts?: ErrorFacts) => TypertError> = {
  TypertError,
  UsageError,
  ConfigError,
  CheckpointError,
  HubError,
  GraphError,
  CompileError,
  EngineError,
  TargetError,
  RequestError,
  ExecutorError,
};

/** What crosses a thread of an error: its class, message, facts, stack and cause. */
export interface SerializedError {
  readonly name: string;
  readonly message: string;
  readonly stack?: string;
  readonly facts?: Readonly<Partial<Record<'where' | 'expected' | 'got' | 'remedy', string>>>;
  readonly cause?: SerializedError;
}

export function serializeError(error: unknown): SerializedError {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error) };
  const { name, message, stack, cause } = error;
  const { where, expected, got, remedy } = error instanceof TypertError ? error : {};
  const facts = Object.entries({ where, expected, got, remedy }).filter(([, fact]) => fact !== undefined);
  return {
    name,
    message,
    ...(stack === undefined ? {} : { stack }),
    ...(facts.length === 0 ? {} : { facts: Object.fromEntries(facts) }),
    ...(cause === undefined ? {} : { cause: serializeError(cause) }),
  };
}

/** Rebuilds an error of the same class from what `serializeError` put out. */
export function deserializeError(data: SerializedError): Error {
  const Class = classes[data.name];
  const error = Class === undefined ? new Error(data.message) : new Class(data.message);
  Object.assign(error, data.facts);
  if (data.stack !== undefined) error.stack = data.stack;
  if (data.cause !== undefined) error.cause = deserializeError(data.cause);
  return error;
}

/** A short text of any value for use in error messages. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 80 ? `${value.slice(0, 77)}...` : value);
  if (typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean' || value == null)
    return String(value);
  if (typeof value === 'function') return 'a function';
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 120 ? `${text.slice(0, 117)}...` : text;
}

/** The `limit` names nearest to `name` for "did you mean": those that contain it, then by edit distance. */
export function nearest(name: string, names: Iterable<string>, limit = 3): string[] {
  const distance = (a: string, b: string): number => {
    let row = Array.from({ length: b.length + 1 }, (_, i) => i);
    for (let i = 1; i <= a.length; i++) {
      const next = [i];
      for (let j = 1; j <= b.length; j++) {
        const substitution = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
        next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, substitution));
      }
      row = next;
    }
    return row[b.length]!;
  };
  return [...names]
    .map((candidate) => {
      const [short, long] = [name.toLowerCase(), candidate.toLowerCase()];
      return { candidate, holds: long.includes(short) ? 0 : 1, score: distance(short, long) };
    })
    .sort((a, b) => a.holds - b.holds || a.score - b.score)
    .slice(0, limit)
    .map(({ candidate }) => candidate);
}
