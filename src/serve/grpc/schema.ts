// The messages of the KServe v2 gRPC service and of gRPC's health check, by the field numbers of their public .proto files (kserve and triton: package inference; grpc.health.v1).
import type { Scalar, Schema } from './protobuf.ts';

const one = (id: number, type: Scalar | Schema) => ({ id, type });
const many = (id: number, type: Scalar | Schema) => ({ id, type, kind: 'repeated' as const });
const map = (id: number, type: Scalar | Schema) => ({ id, type, kind: 'map' as const });

const parameter: Schema = {
  bool_param: one(1, 'bool'),
  int64_param: one(2, 'int64'),
  string_param: one(3, 'string'),
  double_param: one(4, 'double'),
  uint64_param: one(5, 'uint64'),
};

const contents: Schema = {
  bool_contents: many(1, 'bool'),
  int_contents: many(2, 'int32'),
  int64_contents: many(3, 'int64'),
  uint_contents: many(4, 'uint32'),
  uint64_contents: many(5, 'uint64'),
  fp32_contents: many(6, 'float'),
  fp64_contents: many(7, 'double'),
  bytes_contents: many(8, 'bytes'),
};

const tensor: Schema = {
  name: one(1, 'string'),
  datatype: one(2, 'string'),
  shape: many(3, 'int64'),
  parameters: map(4, parameter),
  contents: one(5, contents),
};

export const inferRequest: Schema = {
  model_name: one(1, 'string'),
  model_version: one(2, 'string'),
  id: one(3, 'string'),
  parameters: map(4, parameter),
  inputs: many(5, tensor),
  outputs: many(6, { name: one(1, 'string'), parameters: map(2, parameter) }),
  raw_input_contents: many(7, 'bytes'),
};

export const inferResponse: Schema = {
  model_name: one(1, 'string'),
  model_version: one(2, 'string'),
  id: one(3, 'string'),
  parameters: map(4, parameter),
  outputs: many(5, tensor),
  raw_output_contents: many(6, 'bytes'),
};

export const streamResponse: Schema = {
  error_message: one(1, 'string'),
  infer_response: one(2, inferResponse),
};

export const empty: Schema = {};
export const named: Schema = { name: one(1, 'string'), version: one(2, 'string') };
export const live: Schema = { live: one(1, 'bool') };
export const ready: Schema = { ready: one(1, 'bool') };

export const serverMetadata: Schema = {
  name: one(1, 'string'),
  version: one(2, 'string'),
  extensions: many(3, 'string'),
};

const tensorMetadata: Schema = { name: one(1, 'string'), datatype: one(2, 'string'), shape: many(3, 'int64') };

export const modelMetadata: Schema = {
  name: one(1, 'string'),
  versions: many(2, 'string'),
  platform: one(3, 'string'),
  inputs: many(4, tensorMetadata),
  outputs: many(5, tensorMetadata),
};

/** Numbers of the data types in a model's configuration. */
export const dataTypes: Readonly<Record<string, number>> = {
  TYPE_BOOL: 1,
  TYPE_UINT8: 2,
  TYPE_UINT16: 3,
  TYPE_UINT32: 4,
  TYPE_UINT64: 5,
  TYPE_INT8: 6,
  TYPE_INT16: 7,
  TYPE_INT32: 8,
  TYPE_INT64: 9,
  TYPE_FP16: 10,
  TYPE_FP32: 11,
  TYPE_FP64: 12,
  TYPE_STRING: 13,
};

export const modelConfig: Schema = {
  config: one(1, {
    name: one(1, 'string'),
    platform: one(2, 'string'),
    max_batch_size: one(4, 'int32'),
    input: many(5, {
      name: one(1, 'string'),
      data_type: one(2, 'int32'),
      dims: many(4, 'int64'),
      optional: one(8, 'bool'),
    }),
    output: many(6, { name: one(1, 'string'), data_type: one(2, 'int32'), dims: many(3, 'int64') }),
    backend: one(17, 'string'),
    model_transaction_policy: one(19, { decoupled: one(1, 'bool') }),
  }),
};

const duration: Schema = { count: one(1, 'uint64'), ns: one(2, 'uint64') };

export const statistics: Schema = {
  model_stats: many(1, {
    name: one(1, 'string'),
    version: one(2, 'string'),
    last_inference: one(3, 'uint64'),
    inference_count: one(4, 'uint64'),
    execution_count: one(5, 'uint64'),
    inference_stats: one(6, {
      success: one(1, duration),
      fail: one(2, duration),
      queue: one(3, duration),
      compute_input: one(4, duration),
      compute_infer: one(5, duration),
      compute_output: one(6, duration),
    }),
  }),
};

export const indexRequest: Schema = { repository_name: one(1, 'string'), ready: one(2, 'bool') };
export const index: Schema = {
  models: many(1, {
    name: one(1, 'string'),
    version: one(2, 'string'),
    state: one(3, 'string'),
    reason: one(4, 'string'),
  }),
};
export const repositoryModel: Schema = { repository_name: one(1, 'string'), model_name: one(2, 'string') };

export const healthCheck: Schema = { service: one(1, 'string') };
/** 1: serving, 2: not. */
export const healthStatus: Schema = { status: one(1, 'int32') };
