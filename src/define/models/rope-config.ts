// Reads rotary embedding settings: transformers 4's `rope_theta` + `rope_scaling` (`type` or `rope_type`) and 5's `rope_parameters`.
import type { RopeScaling } from '../nn/rope.ts';
import { Fields } from './fields.ts';

export interface RopeConfig {
  readonly rotaryBase: number;
  /** Share of a head's columns that rotate. */
  readonly rotaryPct: number;
  readonly rotaryScaling: RopeScaling;
}

const kinds = ['default', 'linear', 'dynamic', 'llama3', 'yarn', 'longrope', 'su', 'factors'] as const;

function scaling(fields: Fields, config: Fields): RopeScaling {
  const type = fields.oneOf(fields.has('rope_type') ? 'rope_type' : 'type', kinds, 'default');
  const original = () =>
    fields.size(
      'original_max_position_embeddings',
      config.size('original_max_position_embeddings', config.size('max_position_embeddings')),
    );
  const factor = () =>
    fields.has('factor') ? fields.positive('factor') : config.size('max_position_embeddings') / original();
  const optional = (name: string, key: string) => (fields.has(name) ? { [key]: fields.number(name) } : {});
  switch (type) {
    case 'default':
      return { ropeType: 'default' };
    case 'linear':
    case 'dynamic':
      return { ropeType: type, factor: fields.positive('factor') };
    case 'llama3':
      return {
        ropeType: 'llama3',
        factor: fields.positive('factor'),
        lowFreqFactor: fields.positive('low_freq_factor'),
        highFreqFactor: fields.positive('high_freq_factor'),
        originalMaxPositionEmbeddings: original(),
      };
    case 'yarn':
      return {
        ropeType: 'yarn',
        factor: factor(),
        originalMaxPositionEmbeddings: original(),
        betaFast: fields.positive('beta_fast', 32),
        betaSlow: fields.positive('beta_slow', 1),
        truncate: fields.flag('truncate', true),
        ...optional('attention_factor', 'attentionFactor'),
        ...optional('mscale', 'mscale'),
        ...optional('mscale_all_dim', 'mscaleAllDim'),
      };
    case 'longrope':
    case 'su':
      return {
        ropeType: 'longrope',
        factor: factor(),
        originalMaxPositionEmbeddings: original(),
        shortFactor: fields.numbers('short_factor'),
        longFactor: fields.numbers('long_factor'),
        ...optional('attention_factor', 'attentionFactor'),
      };
    case 'factors':
      return { ropeType: 'factors', factors: fields.numbers('factors') };
    default:
      return type satisfies never;
  }
}

/** `layerType` picks one of rope_parameters' entries where a model has several (Gemma 3). */
export function ropeConfig(config: Fields, layerType?: string): RopeConfig {
  const pct = (fields: Fields) =>
    fields.positive(
      'partial_rotary_factor',
      config.positive('partial_rotary_factor', config.positive('rotary_pct', 1)),
    );
  const theta = (fields: Fields) =>
    fields.positive('rope_theta', config.positive('rope_theta', config.positive('rotary_emb_base', 10000)));
  const known = config.has('rope_parameters') ? 'rope_parameters' : 'rope_scaling';
  if (!config.has(known)) {
    const none = new Fields({}, config.where);
    return { rotaryBase: theta(none), rotaryPct: pct(none), rotaryScaling: { ropeType: 'default' } };
  }
  const outer = config.object(known);
  const fields = layerType !== undefined && outer.has(layerType) ? outer.object(layerType) : outer;
  return { rotaryBase: theta(fields), rotaryPct: pct(fields), rotaryScaling: scaling(fields, config) };
}
