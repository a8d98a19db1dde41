// Streams written straight to a Node response. A web stream between the source and the socket costs more than all the rest of a token, so it is left out where there is a socket.
import type { ServerResponse } from 'node:http';
import type { TextSource } from './sse.ts';

/**
 * Writes a piece of the body; false when the reader is behind. `ServerResponse.write` makes four buffers of a chunk and gathers them a tick later; a chunk that is framed here (RFC 9112,
 * section 7.1) is one text that goes to the socket at once, at half the cost. A pipelined response that waits for the one before it has no socket yet and is left to Node.
 */
function writePiece(outgoing: ServerResponse, piece: string): boolean {
  const { socket } = outgoing;
  if (socket === null || !outgoing.chunkedEncoding || outgoing.req.method === 'HEAD') return outgoing.write(piece);
  if (piece === '') return true;
  return socket.write(`${Buffer.byteLength(piece).toString(16)}\r\n${piece}\r\n`);
}

function isBehind(outgoing: ServerResponse): boolean {
  return outgoing.writableNeedDrain || (outgoing.socket?.writableNeedDrain ?? false);
}

/** Resolves when the response can take more, or is gone. */
function drained(outgoing: ServerResponse): Promise<void> {
  const { socket } = outgoing;
  return new Promise((resolve) => {
    const done = (): void => {
      outgoing.off('drain', done);
      outgoing.off('close', done);
      socket?.off('drain', done);
      resolve();
    };
    outgoing.on('drain', done);
    outgoing.on('close', done);
    socket?.on('drain', done);
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
          if (!isBehind(outgoing)) writePiece(outgoing, keepAlive);
        }, keepAliveMs);
  try {
    for await (const piece of pieces) {
      timer?.refresh();
      if (!writePiece(outgoing, piece)) await drained(outgoing);
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
