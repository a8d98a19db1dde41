// A promise and the functions that settle it (Promise.withResolvers, which Node 20 does not have).

export interface Deferred<Value> {
  readonly promise: Promise<Value>;
  readonly resolve: (value: Value) => void;
  readonly reject: (reason: unknown) => void;
}

export function deferred<Value>(): Deferred<Value> {
  let resolve!: (value: Value) => void;
  let reject!: (reason: unknown) => void;
  const promise = new Promise<Value>((fulfil, refuse) => {
    resolve = fulfil;
    reject = refuse;
  });
  return { promise, resolve, reject };
}

/** Questions under way, by number. */
export class Calls<Answer> {
  readonly #open = new Map<number, Deferred<Answer>>();

  get size(): number {
    return this.#open.size;
  }

  open(call: number): Promise<Answer> {
    const answer = deferred<Answer>();
    this.#open.set(call, answer);
    return answer.promise;
  }

  answer(call: number, value: Answer): void {
    this.#open.get(call)?.resolve(value);
    this.#open.delete(call);
  }

  fail(reason: unknown): void {
    for (const call of this.#open.values()) call.reject(reason);
    this.#open.clear();
  }
}
