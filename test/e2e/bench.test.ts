// `typert bench` on random weights of a shape: what it reports adds up, and what it is given is checked.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openEngine } from 'typert/engine';
import { describe, expect, test } from 'vitest';
import { typert } from '../support/cli.ts';
import { goldenPath } from '../support/golden.ts';
import { temporaryFolder } from '../support/temporary.ts';

const folder = temporaryFolder();
const dummy = ['--load-format', 'dummy', '--target', 'reference', '--max-seq-len', '64'];

describe('typert bench', () => {
  const config = join(folder, 'config.json');
  writeFileSync(config, readFileSync(join(goldenPath('llama'), 'config.json')));

  test('throughput on random weights from a config.json alone', async () => {
    const size = ['--num-requests', '5', '--input-len', '7', '--output-len', '6'];
    const { stdout, code } = await typert(['bench', 'throughput', config, ...dummy, ...size, '--json']);
    expect(code).toBe(0);
    const { request_info, performance, engine } = JSON.parse(stdout);
    expect(request_info).toEqual({ num_requests: 5, avg_input_length: 7, avg_output_length: 6 });
    expect(engine).toMatchObject({ backend: 'TypeRT', target: 'reference', concurrency: 5, maxSeqLen: 64 });
    const seconds = performance.total_latency_ms / 1e3;
    expect(performance.system_output_throughput_tok_s).toBeCloseTo(30 / seconds, 6);
    expect(performance.system_total_throughput_tok_s).toBeCloseTo(65 / seconds, 6);
    expect(performance.request_throughput_req_s).toBeCloseTo(5 / seconds, 6);
    const { p50, minimum, maximum } = performance.ttft_percentiles_ms;
    expect(p50).toBeGreaterThanOrEqual(minimum);
    expect(maximum).toBeLessThanOrEqual(performance.total_latency_ms);
  });

  test('latency over a dataset of token ids, as text and in a file', async () => {
    const dataset = join(folder, 'data.jsonl');
    writeFileSync(
      dataset,
      '{"task_id": 1, "input_ids": [5, 6, 7], "output_tokens": 4}\n\n{"input_ids": [9], "output_tokens": 2}\n',
    );
    const reportJson = join(folder, 'report.json');
    const load = ['--dataset', dataset, '--warmup', '0', '--report-json', reportJson];
    const { stdout, stderr, code } = await typert(['bench', 'latency', config, ...dummy, ...load]);
    expect(stderr).not.toMatch(/error/i);
    expect(code).toBe(0);
    expect(stdout).toMatch(/Total Output Throughput \(tokens\/sec\) +\d/);
    expect(stdout).toMatch(/TTFT/);
    expect(JSON.parse(readFileSync(reportJson, 'utf8')).request_info).toEqual({
      num_requests: 2,
      avg_input_length: 2,
      avg_output_length: 3,
    });
  });

  test.each([
    ['{"prompt": "x"}', /data\.jsonl:1.*output_tokens/s],
    ['{"prompt": "x", "input_ids": [1], "output_tokens": 3}', /either prompt or input_ids/],
    ['nonsense', /not a line of JSON/],
    ['', /dataset is empty/],
  ])('refuses a dataset of %s', async (text, message) => {
    const dataset = join(folder, 'data.jsonl');
    writeFileSync(dataset, text);
    const { stderr, code } = await typert(['bench', 'throughput', config, ...dummy, '--dataset', dataset]);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });

  test('random weights are the same each time, and others in every layer', async () => {
    const weightsOf = async (name: string) => {
      const engineDir = join(folder, name);
      const built = await typert(['build', config, '--load-format', 'dummy', '--target', 'reference', '-o', engineDir]);
      expect(built.stderr + built.stdout).toContain('launches');
      using engine = openEngine(engineDir);
      return engine.plan.tensors
        .filter(({ storage, shape }) => storage.kind === 'weight' && shape.length > 1)
        .map(({ name: tensor }) => Buffer.from(engine.readWeight(tensor)).toString('base64'));
    };
    const [first, again] = [await weightsOf('a'), await weightsOf('b')];
    expect(first).toEqual(again);
    expect(new Set(first).size).toBe(first.length);
  });
});
