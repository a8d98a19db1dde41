// One answer on its way: asked of the server, read as it comes, with what it took.
import { events, postJson } from '../api.ts';

export interface Message {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
}

export interface Progress {
  readonly content: string;
  readonly reasoning: string;
  readonly numTokens: number;
  readonly promptTokens: number | undefined;
  readonly cachedTokens: number | undefined;
  /** Milliseconds until the first token, and from the first to the newest. */
  readonly firstMs: number | undefined;
  readonly decodeMs: number;
  /** Why it ended. */
  readonly finish: string | undefined;
}

interface Chunk {
  readonly choices?: readonly {
    readonly delta: { readonly content?: string; readonly reasoning_content?: string };
    readonly finish_reason: string | null;
  }[];
  readonly usage?: {
    readonly prompt_tokens: number;
    readonly completion_tokens: number;
    readonly prompt_tokens_details?: { readonly cached_tokens: number };
  } | null;
  readonly error?: { readonly message: string };
}

/** Asks for an answer and tells of it as it comes. Throws ApiError, an Error with what the stream said, or the signal's abort. */
export async function answer(
  body: Readonly<Record<string, unknown>>,
  signal: AbortSignal,
  tell: (progress: Progress) => void,
): Promise<Progress> {
  const started = performance.now();
  let progress: Progress = {
    content: '',
    reasoning: '',
    numTokens: 0,
    promptTokens: undefined,
    cachedTokens: undefined,
    firstMs: undefined,
    decodeMs: 0,
    finish: undefined,
  };
  const stream = { stream: true, stream_options: { include_usage: true } };
  const response = await postJson('/v1/chat/completions', { ...body, ...stream }, signal);
  for await (const data of events(response)) {
    if (data === '[DONE]') break;
    const { choices = [], usage, error } = JSON.parse(data) as Chunk;
    if (error !== undefined) throw new Error(error.message);
    const [choice] = choices;
    const { content = '', reasoning_content: reasoning = '' } = choice?.delta ?? {};
    const came = content !== '' || reasoning !== '';
    const now = performance.now();
    const firstMs = progress.firstMs ?? (came ? now - started : undefined);
    progress = {
      content: progress.content + content,
      reasoning: progress.reasoning + reasoning,
      numTokens: usage?.completion_tokens ?? progress.numTokens + (came ? 1 : 0),
      promptTokens: usage?.prompt_tokens ?? progress.promptTokens,
      cachedTokens: usage?.prompt_tokens_details?.cached_tokens ?? progress.cachedTokens,
      firstMs,
      decodeMs: came && firstMs !== undefined ? now - started - firstMs : progress.decodeMs,
      finish: choice?.finish_reason ?? progress.finish,
    };
    tell(progress);
  }
  return progress;
}
