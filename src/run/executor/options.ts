// The executor's own options, checked before an engine is started.
import { nearest, show, UsageError } from '../../base/errors.ts';
import type { ExecutorOptions } from './protocol.ts';
import type { CapacitySchedulerPolicy } from './scheduler.ts';

const policies: readonly CapacitySchedulerPolicy[] = ['guaranteed_no_evict', 'max_utilization', 'static_batch'];
const schedulerFields = ['capacitySchedulerPolicy', 'contextChunkSize'];

function checkCount(where: string, value: number | undefined): void {
  if (value !== undefined && !(Number.isSafeInteger(value) && value >= 1))
    throw new UsageError('not a count', { where, expected: 'an integer ≥ 1', got: show(value) });
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
  speculativeConfig,
}: ExecutorOptions): void {
  checkCount('maxQueueSize', maxQueueSize);
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
  const { capacitySchedulerPolicy: policy } = schedulerConfig;
  if (policy !== undefined && !policies.includes(policy))
    throw new UsageError('not a policy', {
      where: 'schedulerConfig.capacitySchedulerPolicy',
      expected: policies.join(', '),
      got: show(policy),
    });
}
