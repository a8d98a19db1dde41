// GET /metrics (Prometheus) and /iteration_stats, /kv_cache: the newest steps as JSON, in TensorRT-LLM's field names.
import type { Hono } from 'hono';
import type { Env, Services } from '../http.ts';
import type { Metrics } from './metrics.ts';

export function addMetrics(app: Hono<Env>, { registry }: Services, metrics: Metrics): void {
  const scrape = async (): Promise<Response> => {
    // Counters take differences, so numbers that the watch has told already are not counted twice.
    for (const model of registry.models) {
      const statistics = await model.look();
      if (statistics !== undefined) metrics.statistics(model.name, statistics);
      metrics.setReady(model.name, model.state === 'ready');
    }
    return new Response(await metrics.text(), { headers: { 'content-type': metrics.contentType } });
  };
  app.get('/metrics', scrape);
  // Where TensorRT-LLM's server has its numbers.
  app.get('/prometheus/metrics', scrape);
  app.get('/iteration_stats', async (c) => {
    const statistics = await registry.get(c.req.query('model')).llm.statistics();
    return c.json(statistics);
  });
}
