// Counts and durations of inference by model name, as the statistics extension of the KServe v2 protocol tells them.

interface Duration {
  count: number;
  ns: number;
}

interface Entry {
  readonly success: Duration;
  readonly fail: Duration;
  last: number;
}

export class Statistics {
  readonly #entries = new Map<string, Entry>();

  /** A request begins; the returned function says how it ended. */
  begin(name: string): (ok: boolean) => void {
    const started = performance.now();
    return (ok) => {
      let entry = this.#entries.get(name);
      if (entry === undefined)
        this.#entries.set(name, (entry = { success: { count: 0, ns: 0 }, fail: { count: 0, ns: 0 }, last: 0 }));
      const duration = ok ? entry.success : entry.fail;
      duration.count++;
      duration.ns += Math.round((performance.now() - started) * 1e6);
      entry.last = Date.now();
    };
  }

  of(name: string): Record<string, unknown> {
    const none = { count: 0, ns: 0 };
    const { success = none, fail = none, last = 0 } = this.#entries.get(name) ?? {};
    return {
      name,
      version: '1',
      last_inference: last,
      inference_count: success.count,
      execution_count: success.count,
      inference_stats: {
        success,
        fail,
        queue: none,
        compute_input: none,
        // Steps belong to several requests at once: a request's whole time is what it took.
        compute_infer: success,
        compute_output: none,
        cache_hit: none,
        cache_miss: none,
      },
      batch_stats: [],
    };
  }
}
