// The memory of targets that compute on the host.
import { freemem, totalmem } from 'node:os';
import type { DeviceMemory } from './target.ts';

export function hostMemory(): DeviceMemory {
  return { kind: 'host', total: totalmem(), free: freemem() };
}
