// Text streams over HTTP that are as fast as their reader: nothing is asked of the source until the last piece was taken, and a reader that leaves ends the source.

const encoder = new TextEncoder();

export interface StreamOptions {
  readonly contentType: string;
  /** Called when the reader leaves. */
  readonly abort: (reason?: unknown) => void;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent when nothing else was for `keepAliveMs`. */
  readonly keepAlive?: string;
  readonly keepAliveMs?: number;
}

/** What stands behind a streamed response. */
export interface TextSource {
  readonly pieces: AsyncGenerator<string, void, undefined>;
  readonly abort: (reason?: unknown) => void;
  readonly keepAlive: string | undefined;
  readonly keepAliveMs: number;
}

const sources = new WeakMap<Response, TextSource>();

/** The source of a response that `streamText` made: whoever writes it himself must not read the body. */
export function sourceOf(response: Response): TextSource | undefined {
  return sources.get(response);
}

/** A response whose body is `source`, piece by piece. `source` handles its own errors. */
export function streamText(source: AsyncGenerator<string, void, undefined>, options: StreamOptions): Response {
  const { contentType, abort, headers = {}, keepAlive, keepAliveMs = 15_000 } = options;
  let pending: Promise<IteratorResult<string, void>> | undefined;
  const body = new ReadableStream<Uint8Array>(
    {
      pull: async (controller) => {
        pending ??= source.next();
        let timer: NodeJS.Timeout | undefined;
        try {
          const waited =
            keepAlive === undefined
              ? await pending
              : await Promise.race([
                  pending,
                  new Promise<undefined>((resolve) => {
                    timer = setTimeout(() => resolve(undefined), keepAliveMs);
                  }),
                ]);
          if (waited === undefined) {
            controller.enqueue(encoder.encode(keepAlive));
            return;
          }
          pending = undefined;
          if (waited.done) controller.close();
          else controller.enqueue(encoder.encode(waited.value));
        } finally {
          clearTimeout(timer);
        }
      },
      cancel: (reason) => {
        abort(reason);
        // The abort makes the source throw or end; whatever it was doing is no longer wanted.
        pending?.catch(() => {});
        source.return().catch(() => {});
      },
    },
    { highWaterMark: 0 },
  );
  const response = new Response(body, {
    headers: {
      'content-type': contentType,
      'cache-control': 'no-cache, no-transform',
      // Tells nginx not to collect the stream.
      'x-accel-buffering': 'no',
      ...headers,
    },
  });
  sources.set(response, { pieces: source, abort, keepAlive, keepAliveMs });
  return response;
}

/** Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html */
export function streamEvents(
  source: AsyncGenerator<string, void, undefined>,
  options: Omit<StreamOptions, 'contentType' | 'keepAlive'>,
): Response {
  return streamText(source, {
    ...options,
    contentType: 'text/event-stream; charset=utf-8',
    keepAlive: ': still here\n\n',
  });
}

/** Writes events that begin alike: what they share is turned into text once. */
export function eventWriter(
  shared: Readonly<Record<string, unknown>>,
): (rest: Readonly<Record<string, unknown>>) => string {
  const head = `data: ${JSON.stringify(shared).slice(0, -1)},`;
  return (rest) => `${head}${JSON.stringify(rest).slice(1)}\n\n`;
}

/** One event with JSON data. */
export function event(data: unknown, name?: string): string {
  return `${name === undefined ? '' : `event: ${name}\n`}data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`;
}
