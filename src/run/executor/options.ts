// The executor's own options, checked before an engine is started.
import { nearest, show, UsageError } from '../../base/errors.ts';
import type { CapacitySchedulerPolicy } from './capacity.ts';
import type { ContextChunkingPolicy } from './chunking.ts';
import type { ExecutorOptions } from './protocol.ts';

const policies: readonly CapacitySchedulerPolicy[] = ['guaranteed_no_evict', 'max_utilization', 'static_batch'];
const chunkingPolicies: readonly ContextChunkingPolicy[] = ['first_come_first_served', 'equal_progress'];
const schedulerFields = ['capacitySchedulerPolicy', 'contextChunkSize', 'contextChunkingPolicy', 'priorityAgingMs'];

function checkCount(where: string, value: number | undefined): void {
  if (value !== undefined && !(Number.isSafeInteger(value) && value >= 1))
    throw new UsageError('not a count', { where, expected: 'an integer ≥ 1', got: show(value) });
}

function checkPolicy<Policy extends string>(field: string, known: readonly Policy[], policy: Policy | undefined): void {
  if (policy !== undefined && !known.includes(policy))
    throw new UsageError('not a policy', {
      where: `schedulerConfig.${field}`,
      expected: known.join(', '),
      got: show(policy),
    });
}

function checkSpeculation(config: ExecutorOptions['speculativeConfig']): void {
  if (config === undefined) return;
  if (config.decodingType !== 'ngram')
    throw new UsageError('not a way to speculate', {
      where: 'speculativeConfig.decodingType',
      expected: "'ngram'",
      got: show(config.decodingType),
    });
  checkCount('speculativeConfig.maxDraftLen', config.maxDraftLen);
  checkCount('speculativeConfig.maxMatchingNgramSize', config.maxMatchingNgramSize);
}

/** Throws UsageError that names the option, what it may be and what came. What concerns the session is checked where it is opened. */
export function checkExecutorOptions({
  schedulerConfig = {},
  maxQueueSize,
  iterStatsMaxIterations,
  streamInterval,
  speculativeConfig,
}: ExecutorOptions): void {
  checkCount('maxQueueSize', maxQueueSize);
  checkCount('streamInterval', streamInterval);
  checkCount('iterStatsMaxIterations', iterStatsMaxIterations);
  checkCount('schedulerConfig.contextChunkSize', schedulerConfig.contextChunkSize);
  checkSpeculation(speculativeConfig);
  for (const field of Object.keys(schedulerConfig)) {
    if (!schedulerFields.includes(field))
      throw new UsageError('unknown field', {
        where: `schedulerConfig.${field}`,
        expected: nearest(field, schedulerFields).join(' or '),
      });
  }
  const { capacitySchedulerPolicy, contextChunkingPolicy, priorityAgingMs } = schedulerConfig;
  if (priorityAgingMs !== undefined && !(typeof priorityAgingMs === 'number' && priorityAgingMs >= 0))
    throw new UsageError('not a time', {
      where: 'schedulerConfig.priorityAgingMs',
      expected: 'milliseconds ≥ 0, or Infinity',
      got: show(priorityAgingMs),
    });
  checkPolicy('capacitySchedulerPolicy', policies, capacitySchedulerPolicy);
  checkPolicy('contextChunkingPolicy', chunkingPolicies, contextChunkingPolicy);
}
