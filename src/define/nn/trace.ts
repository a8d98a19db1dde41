// Tracing: runs a model's forward once over symbolic step inputs and keeps the graph it records.
import type { FloatDType } from '../../base/dtype.ts';
import { add, type Shape } from '../../base/expr.ts';
import { type Graph, GraphBuilder } from '../graph/graph.ts';
import { verify } from '../graph/verify.ts';
import type { CausalLM, StepInputs } from './step.ts';
import { Tensor, type Trace } from './tensor.ts';

/** Options of `traceModel`. */
export interface TraceOptions {
  readonly name: string;
  /** Dtype of activations. */
  readonly dtype: FloatDType;
  readonly maxBlocksPerSequence: number;
}

/** The graph of one step: logits [L, vocabSize] and, from them, one sampled token a row. Parameters must be bound. */
export function traceModel(model: CausalLM, { name, dtype, maxBlocksPerSequence }: TraceOptions): Graph {
  const builder = new GraphBuilder(name);
  const trace: Trace = { builder, dtype };
  const int = (input: string, shape: Shape) => new Tensor(trace, builder.input(input, 'int32', shape));
  const step: StepInputs = {
    tokens: int('tokens', ['T']),
    positions: int('positions', ['T']),
    requestOffsets: int('requestOffsets', [add('R', 1)]),
    contextLengths: int('contextLengths', ['R']),
    blockTables: int('blockTables', ['R', maxBlocksPerSequence]),
    cacheSlots: int('cacheSlots', ['T']),
    logitsRows: int('logitsRows', ['L']),
  };
  const logits = model.forward(step).value;
  const float = (input: string) => builder.input(input, 'float32', ['L']);
  const { token, logprob } = builder.op(
    'sample',
    'sample',
    {
      logits,
      temperature: float('temperature'),
      topK: builder.input('topK', 'int32', ['L']),
      topP: float('topP'),
      minP: float('minP'),
      seedLow: builder.input('seedLow', 'int32', ['L']),
      seedHigh: builder.input('seedHigh', 'int32', ['L']),
      counter: builder.input('counter', 'int32', ['L']),
    },
    {},
  );
  return verify(builder.finish({ logits, token: token!, logprob: logprob! }), 'trace');
}
