// `typert serve`: models behind OpenAI's API and others, until a signal ends it.
import { existsSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { type Command, Option } from 'commander';
import { readEnv } from '../../base/env.ts';
import { UsageError } from '../../base/errors.ts';
import { LLM } from '../../llm/llm.ts';
import type { ModelSource, ServerOptions } from '../../serve/index.ts';
import {
  type BuildFlags,
  buildOptions,
  bundledModel,
  integer,
  type RuntimeFlags,
  runtimeOptions,
  sourceOptions,
  toLLMOptions,
} from '../options.ts';
import { applyConfigFile, type ConfiguredModel } from '../serve-config.ts';
import { adviseSpeed, terminalProgress } from '../terminal.ts';

interface ServeFlags extends BuildFlags, RuntimeFlags {
  readonly host: string;
  readonly port: number;
  readonly servedModelName?: string;
  readonly apiKey?: readonly string[];
  readonly apiKeyFile?: string;
  readonly corsOrigin?: readonly string[];
  readonly maxQueueSize: number;
  readonly maxBodySize: number;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly toolParser: string;
  readonly reasoningParser: string;
  readonly logLevel: 'silent' | 'error' | 'warn' | 'info' | 'debug';
  readonly drainTimeout: number;
  readonly grpcPort?: number;
  readonly config?: string;
  readonly otlpTracesEndpoint?: string;
}

/** A hub id stays as it is; a path gives its last part. */
function nameOf(model: string): string {
  return existsSync(model) ? basename(model).replace(/\.gguf$/i, '') : model;
}

function keys({ apiKey = [], apiKeyFile }: ServeFlags): string[] {
  if (apiKeyFile === undefined) return [...apiKey];
  try {
    const lines = readFileSync(apiKeyFile, 'utf8').split('\n');
    return [...apiKey, ...lines.map((line) => line.trim()).filter((line) => line !== '' && !line.startsWith('#'))];
  } catch (cause) {
    throw new UsageError('cannot be read', { where: `--api-key-file ${apiKeyFile}`, cause });
  }
}

function tls({ tlsCert, tlsKey }: ServeFlags): { tls?: { certFile: string; keyFile: string } } {
  if (tlsCert === undefined && tlsKey === undefined) return {};
  if (tlsCert === undefined || tlsKey === undefined)
    throw new UsageError('half of a TLS set-up', { expected: 'both --tls-cert and --tls-key' });
  return { tls: { certFile: tlsCert, keyFile: tlsKey } };
}

/** The flag, or OpenTelemetry's own variables. */
function tracing({ otlpTracesEndpoint }: ServeFlags): Pick<ServerOptions, 'tracing'> {
  const { otlp } = readEnv();
  const endpoint = otlpTracesEndpoint ?? otlp.endpoint;
  return endpoint === undefined ? {} : { tracing: { endpoint, headers: otlp.headers } };
}

function curl(url: string, name: string, withKey: boolean): string {
  return [
    `  curl ${url}/v1/chat/completions \\`,
    ...(withKey ? ["    -H 'authorization: Bearer YOUR_KEY' \\"] : []),
    "    -H 'content-type: application/json' \\",
    `    -d '{"model": "${name}", "messages": [{"role": "user", "content": "A story about a fox"}], "stream": true}'`,
  ].join('\n');
}

async function serve(model: string | undefined, flags: ServeFlags, configured: readonly ConfiguredModel[]) {
  // Loaded when it is needed: other commands start without an HTTP framework.
  const { createLogger, startServer } = await import('../../serve/index.ts');
  const { progress, finish } = terminalProgress();
  const sourceOf = ({ model: path, name, ...own }: ConfiguredModel): ModelSource => ({
    name: name ?? nameOf(path),
    load: () => LLM.load(path, { ...toLLMOptions({ ...flags, ...own }), progress }),
    toolParser: own.toolParser ?? flags.toolParser,
    reasoningParser: own.reasoningParser ?? flags.reasoningParser,
  });
  const named: ConfiguredModel[] =
    model !== undefined || configured.length === 0
      ? [
          {
            model: model ?? bundledModel,
            ...(flags.servedModelName === undefined ? {} : { name: flags.servedModelName }),
          },
        ]
      : [];
  const models = [...named, ...configured].map(sourceOf);
  const apiKeys = keys(flags);
  const server = await startServer({
    models,
    host: flags.host,
    port: flags.port,
    apiKeys,
    corsOrigins: flags.corsOrigin ?? [],
    maxQueueSize: flags.maxQueueSize,
    maxBodySize: flags.maxBodySize,
    logger: createLogger({ level: flags.logLevel }),
    ...(flags.grpcPort === undefined ? {} : { grpcPort: flags.grpcPort }),
    ...tls(flags),
    ...tracing(flags),
  });
  const asked = new Promise<NodeJS.Signals>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve(signal));
  });
  try {
    await Promise.race([server.loaded, asked]);
  } catch (error) {
    await server.close(0);
    throw error;
  } finally {
    finish();
  }
  if (server.registry.ready) {
    adviseSpeed(flags.target);
    const names = models.map(({ name }) => name);
    process.stdout.write(
      `Serving ${names.join(', ')} at ${server.url}${server.grpcPort === undefined ? '' : `, gRPC at port ${server.grpcPort}`}\n\n${curl(server.url, names[0]!, apiKeys.length > 0)}\n\n`,
    );
    if (apiKeys.length === 0 && !/^(127\.|localhost$|::1$)/.test(flags.host))
      process.stderr.write('typert: anyone who reaches this port may use it; --api-key-file closes it.\n');
  }
  const signal = await asked;
  process.stderr.write(`typert: ${signal}; finishing open requests (once more to end at once)\n`);
  for (const again of ['SIGINT', 'SIGTERM'] as const) process.once(again, () => process.exit(130));
  await server.close(flags.drainTimeout * 1000);
}

export function addServe(program: Command): void {
  const command = program
    .command('serve')
    .description('Serve models over HTTP: the APIs of OpenAI, Anthropic, Ollama and KServe, metrics, and a dashboard.')
    .argument('[model]', 'Hugging Face id, checkpoint folder, GGUF file or engine folder (default: the bundled model)')
    .option('--host <address>', 'where to listen; 0.0.0.0 for other machines', '127.0.0.1')
    .option('--port <n>', 'port; 0 takes a free one', integer, 8000)
    .option('--grpc-port <n>', 'port of the KServe v2 gRPC service (default: none)', integer)
    .option('--served-model-name <name>', 'name that requests use (default: the id, or the last part of the path)')
    .option('--api-key <key...>', 'a key that requests must carry; may be repeated')
    .option('--api-key-file <file>', 'keys, one a line: other users of the machine cannot see them')
    .option('--cors-origin <origin...>', "web pages that may call from a browser; '*' for all")
    .option('--max-queue-size <n>', 'requests that may wait beyond the batch; more get 429', integer, 1024)
    .option('--max-body-size <bytes>', 'size of a request; more get 413', integer, 32 << 20)
    .option('--tls-cert <file>', 'certificate chain (PEM) for https')
    .option('--tls-key <file>', 'its private key (PEM)')
    .option('--tool-parser <name>', 'how tool calls are written: auto, none, hermes, llama3, mistral', 'auto')
    .option('--reasoning-parser <name>', 'how reasoning is marked: auto, none, qwen3, deepseek-r1, gpt-oss', 'auto')
    .option('--otlp-traces-endpoint <url>', 'OpenTelemetry collector that gets spans of requests (OTLP over HTTP)')
    .option('--drain-timeout <s>', 'seconds that open requests get when it is asked to end', integer, 30)
    .option('--config <file>', 'YAML or JSON with any of these options, and `models:`')
    .addOption(
      new Option('--log-level <level>', 'logs on stderr, as JSON lines, without prompts')
        .choices(['silent', 'error', 'warn', 'info', 'debug'])
        .default('info'),
    );
  runtimeOptions(sourceOptions(buildOptions(command))).addHelpText(
    'after',
    `
Routes:
  /v1/chat/completions  /v1/completions  /v1/responses  /v1/models     OpenAI
  /v1/messages                                                         Anthropic
  /api/chat  /api/generate  /api/tags  /api/show                       Ollama
  /v2/…                                                                KServe v2, Triton
  /                                                                    the dashboard
  /health  /health/ready  /metrics  /server_info                       operation

Examples:
  typert serve                                     the bundled model on 127.0.0.1:8000
  typert serve Qwen/Qwen3-0.6B --port 9000
  typert serve engine --host 0.0.0.0 --api-key-file keys.txt
  typert serve --config serve.yaml                 several models by name

A first SIGINT or SIGTERM lets open requests finish.`,
  );
  command.action(async (model: string | undefined, _flags: ServeFlags, self: Command) => {
    const configured = applyConfigFile(self);
    await serve(model, self.opts<ServeFlags>(), configured);
  });
}
