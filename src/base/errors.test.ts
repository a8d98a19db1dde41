import { describe, expect, test } from 'vitest';
import { deserializeError, EngineError, nearest, serializeError, TypertError } from './errors.ts';

describe('errors', () => {
  test('say where, what was expected, what came and what to do', () => {
    const error = new EngineError('damaged', {
      where: 'a.engine',
      expected: '3 bytes',
      got: '2 bytes',
      remedy: 'Build it again',
    });
    expect(error.message).toBe('a.engine: damaged; expected 3 bytes; got 2 bytes. Build it again');
    expect(error.name).toBe('EngineError');
  });

  test('cross a thread with their class, facts and cause', () => {
    const error = new EngineError('damaged', {
      where: 'a.engine',
      remedy: 'Build it again',
      cause: new RangeError('too far'),
    });
    const again = deserializeError(structuredClone(serializeError(error)));
    expect(again).toBeInstanceOf(EngineError);
    expect(again).toMatchObject({
      message: error.message,
      where: 'a.engine',
      remedy: 'Build it again',
      stack: error.stack,
    });
    expect(again.cause).toMatchObject({ message: 'too far' });
    expect(deserializeError(serializeError('only text'))).toMatchObject({ message: 'only text' });
    expect(deserializeError(serializeError(new RangeError('x')))).not.toBeInstanceOf(TypertError);
  });

  test('know the nearest names', () => {
    expect(nearest('tempature', ['topK', 'temperature', 'seed'], 1)).toEqual(['temperature']);
  });
});
