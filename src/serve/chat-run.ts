// One turn of a conversation, as every chat API needs it: messages in; content, reasoning and tool calls out as they come. The APIs differ only in how they write it down.

import type { ChatMessage, ContentPart } from '../llm/inputs.ts';
import type { StreamedCompletionOutput } from '../llm/outputs.ts';
import type { SamplingParams } from '../run/decode/sampling-params.ts';
import { ServeError } from './errors.ts';
import { generate } from './generate.ts';
import { type ForcedCall, forcedParser, guideOfCall } from './guided.ts';
import type { Observer } from './model.ts';
import { type OutputParser, type Piece, plain } from './parsers/pieces.ts';
import { reasoningParser } from './parsers/reasoning.ts';
import type { Model } from './registry.ts';
import { fillMaxTokens } from './sampling.ts';

type JsonObject = Readonly<Record<string, unknown>>;

export interface ChatJob {
  readonly model: Model;
  readonly messages: readonly ChatMessage[];
  /** The conversation rendered by the client; the messages are then not read. */
  readonly promptTokenIds?: readonly number[];
  readonly tools?: readonly JsonObject[];
  /** A call that has to be made, instead of an answer. */
  readonly forcedCall?: ForcedCall;
  readonly parallelToolCalls?: boolean;
  readonly documents?: readonly JsonObject[];
  readonly templateKwargs?: JsonObject;
  readonly addGenerationPrompt?: boolean;
  /** Without `maxTokens`: as many as fit. */
  readonly params: SamplingParams;
  readonly cacheSalt?: string;
  readonly signal: AbortSignal;
  readonly observer?: Observer;
}

export type ChatFinish = 'stop' | 'length' | 'tool_calls';

/** A tool call has its id and its number among the calls of its answer here. */
export type ChatPiece = Exclude<Piece, { type: 'toolCall' }> | (Piece & { type: 'toolCall'; id: string; at: number });

/** What is new of one answer. */
export interface ChatEvent {
  /** Which of the `n` answers. */
  readonly index: number;
  readonly pieces: readonly ChatPiece[];
  readonly output: StreamedCompletionOutput;
  /** Set in the answer's last event. */
  readonly finish?: ChatFinish;
}

export interface Usage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Tokens of the prompt that the KV cache held; known at the end. */
  readonly cachedTokens?: number;
}

export interface ChatRun {
  readonly promptTokenIds: readonly number[];
  /** Tokens so far. */
  readonly usage: () => Usage;
  readonly events: AsyncGenerator<ChatEvent, void, undefined>;
}

/** OpenAI's newer name of the system role is not known to templates. */
function toTemplateRole(message: ChatMessage): ChatMessage {
  return message.role === 'developer' ? { ...message, role: 'system' } : message;
}

/** Reads one answer: its text through the parsers, its calls numbered. */
class Answer {
  readonly #parser: OutputParser;
  readonly #makeId: () => string;
  readonly #parallel: boolean;
  readonly #endTexts: readonly string[];
  #calls = 0;
  done = false;

  constructor(parser: OutputParser, makeId: () => string, parallel: boolean, endTexts: readonly string[]) {
    this.#parser = parser;
    this.#makeId = makeId;
    this.#parallel = parallel;
    this.#endTexts = endTexts;
  }

  take(output: StreamedCompletionOutput): ChatEvent {
    const { finishReason, stopReason, index } = output;
    let text = output.textDelta;
    const end = this.#endTexts.find((ending) => text.endsWith(ending));
    if (finishReason === 'stop' && stopReason === null && end !== undefined) text = text.slice(0, -end.length);
    const found = this.#parser.push(text);
    if (finishReason === null) return { index, pieces: this.#number(found), output };
    this.done = true;
    const pieces = this.#number([...found, ...this.#parser.end()]);
    const finish = finishReason === 'length' ? 'length' : this.#calls > 0 ? 'tool_calls' : 'stop';
    return { index, pieces, output, finish };
  }

  #number(pieces: readonly Piece[]): ChatPiece[] {
    return pieces.flatMap((piece): ChatPiece[] => {
      if (piece.type !== 'toolCall') return [piece];
      if (!this.#parallel && this.#calls > 0) return [];
      return [{ ...piece, id: this.#makeId(), at: this.#calls++ }];
    });
  }
}

/** Starts a turn. Throws at once when it is refused. */
export function startChat(job: ChatJob): ChatRun {
  const { model, tools, templateKwargs, documents, addGenerationPrompt } = job;
  const { llm, traits } = model;
  const { forcedCall } = job;
  const withTools = tools !== undefined && tools.length > 0;
  // A call that is forced needs no template: the grammar names the tools.
  if (withTools && !traits.templateShowsTools && forcedCall === undefined)
    throw new ServeError('this model was not made for tools: its chat template does not show them', {
      status: 400,
      code: 'unsupported_parameter',
      param: 'tools',
      remedy: "Leave tools out, set tool_choice to 'none', or serve another model",
    });
  const prompt = llm.encode(
    job.promptTokenIds !== undefined
      ? { promptTokenIds: job.promptTokenIds }
      : {
          messages: job.messages.map(toTemplateRole),
          ...(withTools ? { tools } : {}),
          ...(documents === undefined ? {} : { documents }),
          ...(templateKwargs === undefined ? {} : { chatTemplateKwargs: templateKwargs }),
          ...(addGenerationPrompt === undefined ? {} : { addGenerationPrompt }),
        },
  );
  // Markers that are special tokens must not be left out of the text. A guided answer has none.
  const inChannels = traits.reasoning?.kind === 'channels' && job.params.guidedDecoding === undefined;
  const needsSpecial =
    forcedCall === undefined && (inChannels || (withTools && (traits.tools?.needsSpecialTokens ?? false)));
  const guidedDecoding =
    forcedCall === undefined ? undefined : guideOfCall(forcedCall, tools ?? [], job.parallelToolCalls ?? true);
  const params = fillMaxTokens(
    {
      ...job.params,
      ...(needsSpecial ? { skipSpecialTokens: false } : {}),
      ...(guidedDecoding === undefined ? {} : { guidedDecoding }),
    },
    prompt.promptTokenIds.length,
    llm.limits,
  );
  const stream = generate({ ...job, input: { promptTokenIds: prompt.promptTokenIds }, params });
  const answers = Array.from({ length: params.n ?? 1 }, () => {
    const inner = withTools && traits.tools !== undefined ? traits.tools.create() : plain;
    // A guided answer has no place for reasoning.
    const free = traits.reasoning === undefined || params.guidedDecoding !== undefined;
    const read = free ? inner : reasoningParser(traits.reasoning!, prompt.prompt, inner);
    const parser = forcedCall === undefined ? read : forcedParser(forcedCall);
    const makeId = traits.tools?.makeId ?? (() => `call_${crypto.randomUUID()}`);
    return new Answer(parser, makeId, job.parallelToolCalls ?? true, needsSpecial ? traits.endTexts : []);
  });
  let completionTokens = 0;
  let cachedTokens: number | undefined;
  async function* events(): AsyncGenerator<ChatEvent, void, undefined> {
    for await (const { outputs, cachedTokens: cached } of stream) {
      cachedTokens ??= cached;
      for (const output of outputs) {
        const answer = answers[output.index]!;
        completionTokens += output.tokenIdsDelta.length;
        if (answer.done) continue;
        const taken = answer.take(output);
        if (taken.pieces.length > 0 || taken.finish !== undefined || output.tokenIdsDelta.length > 0) yield taken;
      }
    }
  }
  return {
    promptTokenIds: prompt.promptTokenIds,
    usage: () => ({
      promptTokens: prompt.promptTokenIds.length,
      completionTokens,
      ...(cachedTokens === undefined ? {} : { cachedTokens }),
    }),
    events: events(),
  };
}

/** A finished answer. */
export interface ChatAnswer {
  readonly content: string;
  readonly reasoning: string;
  readonly toolCalls: readonly (ChatPiece & { type: 'toolCall' })[];
  readonly finish: ChatFinish;
  readonly output: StreamedCompletionOutput;
}

/** Waits for all answers, in the order of their indices. */
export async function collectChat(run: ChatRun): Promise<ChatAnswer[]> {
  const pieces = new Map<number, ChatPiece[]>();
  const ends = new Map<number, ChatEvent>();
  for await (const taken of run.events) {
    pieces.set(taken.index, [...(pieces.get(taken.index) ?? []), ...taken.pieces]);
    if (taken.finish !== undefined) ends.set(taken.index, taken);
  }
  const join = (all: readonly ChatPiece[], type: 'content' | 'reasoning') =>
    all.flatMap((piece) => (piece.type === type ? [piece.text] : [])).join('');
  return [...ends.entries()]
    .sort(([a], [b]) => a - b)
    .map(([index, { output, finish }]) => {
      const all = pieces.get(index) ?? [];
      return {
        content: join(all, 'content'),
        reasoning: join(all, 'reasoning'),
        toolCalls: all.filter((piece) => piece.type === 'toolCall'),
        finish: finish!,
        output,
      };
    });
}

/** The text of a message's content, whichever form it has. */
export function contentText(content: string | readonly ContentPart[] | null | undefined): string {
  if (typeof content === 'string') return content;
  return (content ?? []).map((part) => part.text ?? '').join('\n');
}
