// A lean load client: many keep-alive connections, one request after the other on each. What comes is kept as bytes and read after the clock has stopped, so that the client costs as
// little of the machine as it can.
import { connect } from 'node:net';

/** A request as bytes. */
export function request(host, path, body, headers = {}) {
  const text = JSON.stringify(body);
  const more = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.from(
    `POST ${path} HTTP/1.1\r\nhost: ${host}\r\ncontent-type: application/json\r\n${more.join('')}content-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
  );
}

const end = Buffer.from('0\r\n\r\n');
/** All connections are read through it, one after the other. */
const received = Buffer.allocUnsafe(1 << 16);

/** One connection; `send` resolves with what was answered, as bytes and times. */
export class Line {
  #socket;
  #open;

  constructor(port) {
    const onread = {
      buffer: received,
      callback: (size) => {
        this.#take(Buffer.from(received.subarray(0, size)));
        return true;
      },
    };
    this.#socket = connect({ port, host: '127.0.0.1', noDelay: true, onread });
    this.#socket.on('error', (error) => this.#fail(error));
    this.#socket.on('close', () => this.#fail(new Error('the connection was closed')));
  }

  #take(chunk) {
    const open = this.#open;
    if (open === undefined) return;
    open.chunks.push(chunk);
    open.times.push(performance.now());
    // A response that says its length comes with an error; streams come in chunks.
    const last = chunk.length >= 5 ? chunk.subarray(-5) : Buffer.concat(open.chunks).subarray(-5);
    if (last[0] === 0x30 && last.equals(end)) this.#done();
    else if (open.chunks.length === 1 && /content-length/i.test(chunk.toString('latin1', 0, 400))) this.#done();
  }

  #done(whole = true) {
    const { resolve, started, chunks, times } = this.#open;
    this.#open = undefined;
    resolve({ started, chunks, times, whole });
  }

  #fail(error) {
    const open = this.#open;
    this.#open = undefined;
    open?.reject(error);
  }

  send(bytes) {
    return new Promise((resolve, reject) => {
      this.#open = { resolve, reject, started: performance.now(), chunks: [], times: [] };
      this.#socket.write(bytes);
    });
  }

  /** An answer that is still coming is broken off. */
  close() {
    if (this.#open !== undefined) this.#done(false);
    this.#socket.destroy();
  }
}

/** Reads what has come every so many milliseconds, until the function it gives is called: a client that wakes for each of thousands of chunks takes the machine from the server it measures. */
export function readSeldom(milliseconds = 4) {
  const word = new Int32Array(new SharedArrayBuffer(4));
  let open = true;
  const turn = () => {
    if (!open) return;
    Atomics.wait(word, 0, 0, milliseconds);
    setImmediate(turn);
  };
  setImmediate(turn);
  return () => {
    open = false;
  };
}

/** The body of an answer in chunked encoding. Throws when it is not one. */
export function bodyOf(chunks) {
  const all = Buffer.concat(chunks);
  const head = all.indexOf('\r\n\r\n');
  if (!all.subarray(0, head).toString('latin1').startsWith('HTTP/1.1 200'))
    throw new Error(all.toString().slice(0, 500));
  const parts = [];
  let at = head + 4;
  for (;;) {
    const line = all.indexOf('\r\n', at);
    const size = Number.parseInt(all.toString('latin1', at, line), 16);
    if (!(size >= 0)) throw new Error('not in chunks');
    if (size === 0) return Buffer.concat(parts).toString();
    parts.push(all.subarray(line + 2, line + 2 + size));
    at = line + 2 + size + 2;
  }
}

/** The text in the bytes of a streamed completion, whole or not. */
export function textOf(chunks) {
  const found = Buffer.concat(chunks)
    .toString()
    .matchAll(/"text":("(?:[^"\\]|\\.)*")/g);
  return [...found].map(([, text]) => JSON.parse(text)).join('');
}

/** How many events of text came. */
export function textEvents(chunks) {
  return Buffer.concat(chunks).toString().split('"text":').length - 1;
}

/** When the first text came: headers come before it. */
export function firstTextAt({ chunks, times }) {
  return times[chunks.findIndex((chunk) => chunk.includes('"text":'))];
}

/** Text, token count and finish of a streamed completion. Throws when it does not end with [DONE]. */
export function completionOf(chunks) {
  const events = bodyOf(chunks)
    .split('\n\n')
    .filter((event) => event.startsWith('data: '))
    .map((event) => event.slice(6));
  if (events.pop() !== '[DONE]') throw new Error('the stream has no end');
  let [text, tokens, finish] = ['', 0, undefined];
  for (const event of events) {
    const { choices, usage, error } = JSON.parse(event);
    if (error !== undefined) throw new Error(error.message);
    if (choices[0] !== undefined) {
      text += choices[0].text;
      finish = choices[0].finish_reason ?? finish;
    }
    tokens = usage?.completion_tokens ?? tokens;
  }
  return { text, tokens, finish };
}
