// Streams written straight to a Node response. A web stream between the source and the socket costs more than all the rest of a token, so it is left out where there is a socket.
import type { ServerResponse } from 'node:http';
import type { TextSource } from './sse.ts';

/** Resolves when the response can take more, or is gone. */
function drained(outgoing: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      outgoing.off('drain', done);
      outgoing.off('close', done);
      resolve();
    };
    outgoing.on('drain', done);
    outgoing.on('close', done);
  });
}

/** Writes `source` as the body of `outgoing`, as fast as its reader takes it; a reader that leaves ends the source. */
export async function writeSource(
  response: Response,
  { pieces, abort, keepAlive, keepAliveMs }: TextSource,
  outgoing: ServerResponse,
): Promise<void> {
  const leave = (): void => {
    if (outgoing.writableFinished) return;
    abort(new DOMException('the reader left', 'AbortError'));
    // A source that waits ends by the abort, one that nobody has begun by this.
    pieces.return().catch(() => {});
  };
  if (outgoing.destroyed) return leave();
  outgoing.on('close', leave);
  outgoing.writeHead(response.status, Object.fromEntries(response.headers));
  outgoing.flushHeaders();
  const timer =
    keepAlive === undefined
      ? undefined
      : setInterval(() => {
          if (!outgoing.writableNeedDrain) outgoing.write(keepAlive);
        }, keepAliveMs);
  try {
    for await (const piece of pieces) {
      timer?.refresh();
      if (!outgoing.write(piece)) await drained(outgoing);
      if (outgoing.destroyed) return;
    }
    outgoing.end();
  } catch {
    // Sources write their errors down themselves; what is left is a reader that has gone.
    outgoing.destroy();
  } finally {
    clearInterval(timer);
  }
}
