// `typert inspect`: an engine's config, plan and memory; a checkpoint's graph after any pass.
import { type Command, Option } from 'commander';
import { readEnv } from '../../base/env.ts';
import { UsageError } from '../../base/errors.ts';
import { printShape } from '../../base/expr.ts';
import { type Compiled, compile } from '../../compile/build.ts';
import { type Engine, isEngine, openEngine } from '../../compile/engine/read.ts';
import { pipeline } from '../../compile/pipeline.ts';
import { type MemoryReport, memoryReport } from '../../compile/report.ts';
import { openCheckpoint } from '../../define/checkpoint/open.ts';
import { printDot, printGraph, printMermaid } from '../../define/graph/print.ts';
import { openSession } from '../../run/session/open.ts';
import { findTarget, targetNamed } from '../../targets/index.ts';
import { cacheDTypeOf, type Plan } from '../../targets/plan.ts';
import type { Target } from '../../targets/target.ts';
import {
  type BuildFlags,
  buildOptions,
  locate,
  type RuntimeFlags,
  runtimeOptions,
  sourceOptions,
  toBuildConfig,
} from '../options.ts';
import { formatBytes, terminalProgress } from '../terminal.ts';

interface Flags extends BuildFlags, RuntimeFlags {
  readonly graph?: string;
  readonly format: 'text' | 'mermaid' | 'dot';
  readonly plan?: boolean;
  readonly memory?: boolean;
  readonly load?: boolean;
  readonly passes?: boolean;
  readonly json?: boolean;
}

const printers = { text: printGraph, mermaid: printMermaid, dot: printDot } as const;

/** One line a launch: its op, kernel, shapes and where its results go. */
export function printPlan(plan: Plan): string {
  const place = (index: number): string => {
    const { storage, name, dtype, shape } = plan.tensors[index]!;
    const where =
      storage.kind === 'arena' ? `arena+${storage.offset}` : storage.kind === 'weight' ? `@${name}` : `input ${name}`;
    return `${where} ${dtype}${printShape(shape)}`;
  };
  const phase = (name: 'forward' | 'sample'): string[] =>
    plan.phases[name].map((step, i) => {
      const args = Object.entries(step.args).map(([arg, index]) => `${arg}: ${place(index)}`);
      return `  ${String(i).padStart(4)} ${step.kernel.name}  ${step.scope}\n         ${args.join('\n         ')}`;
    });
  return [
    `plan for ${plan.target}, ${plan.dtype}, cache of ${cacheDTypeOf(plan)}; arena ${plan.arenaBytes} bytes`,
    'forward',
    ...phase('forward'),
    'sample',
    ...phase('sample'),
    '',
  ].join('\n');
}

function printMemory(report: MemoryReport, plan: Plan): string {
  return [
    `weights (as stored)   ${formatBytes(report.weights)}`,
    `arena                 ${formatBytes(report.arena)}  (activations, at ${plan.limits.maxNumTokens} tokens a step)`,
    `step inputs           ${formatBytes(report.inputs)}`,
    `KV cache, a token     ${formatBytes(report.kvToken)}`,
    `KV cache, a block     ${formatBytes(report.kvBlock)}  (${plan.tokensPerBlock} tokens)`,
    `KV cache, at most     ${formatBytes(report.kvAllSequences)}  (${plan.limits.maxBatchSize} sequences of ${plan.maxBlocksPerSequence * plan.tokensPerBlock} tokens)`,
    '',
  ].join('\n');
}

function inspectEngine(engine: Engine, flags: Flags): string {
  const { config, plan } = engine;
  if (flags.graph !== undefined || flags.passes) {
    throw new UsageError('an engine holds no graph', {
      where: engine.path,
      expected: 'a checkpoint for --graph and --passes',
      remedy: 'Give the checkpoint it was built from; --plan shows an engine’s launches',
    });
  }
  const memory = memoryReport(plan, targetNamed(config.build_config.target), engine.weightBytes);
  if (flags.json) return `${JSON.stringify({ config, memory, ...(flags.plan ? { plan } : {}) }, null, 2)}\n`;
  if (flags.plan) return printPlan(plan);
  if (flags.memory) return printMemory(memory, plan);
  const { pretrained_config: model, build_config: build } = config;
  const launches = plan.phases.forward.length + plan.phases.sample.length;
  return `${model.architecture}, engine version ${config.version} by typert ${config.producer.version}\n${Object.entries(
    build,
  )
    .map(([name, value]) => `  ${name}: ${value}`)
    .join('\n')}\n${launches} launches a step\n${printMemory(memory, plan)}`;
}

function inspectCompiled(
  { stages, graph, plan, model }: Compiled,
  weights: number,
  flags: Flags,
  target: Target,
): string {
  if (flags.passes)
    return `${[...stages].map(([name, stage]) => `${name.padEnd(20)} ${String(stage.nodes.length).padStart(5)} nodes  ${pipeline.find((pass) => pass.name === name)?.does ?? 'the model as it is written'}`).join('\n')}\n`;
  if (flags.graph !== undefined) {
    const stage = stages.get(flags.graph);
    if (stage === undefined)
      throw new UsageError('no such stage', {
        where: '--graph',
        expected: [...stages.keys()].join(', '),
        got: flags.graph,
      });
    return printers[flags.format](stage);
  }
  if (flags.plan) return flags.json ? `${JSON.stringify(plan)}\n` : printPlan(plan);
  const memory = memoryReport(plan, target, weights);
  if (flags.json) return `${JSON.stringify({ config: model.config, memory, nodes: graph.nodes.length }, null, 2)}\n`;
  if (flags.memory) return printMemory(memory, plan);
  return `${model.config.architecture}, ${graph.weights.length} weights, ${graph.nodes.length} nodes\n${printMemory(memory, plan)}`;
}

async function inspect(model: string, flags: Flags): Promise<void> {
  const { progress, finish } = terminalProgress();
  const path = await locate(model, flags, progress);
  finish();
  if (isEngine(path)) {
    {
      using engine = openEngine(path);
      process.stdout.write(inspectEngine(engine, flags));
    }
    if (flags.load) process.stdout.write(await measureLoaded(path, flags));
    return;
  }
  const { loadFormat = 'auto' } = flags;
  using checkpoint = await openCheckpoint(path, { cacheDir: readEnv().cacheDir, loadFormat });
  // Compiling needs no device.
  const target = flags.target === 'auto' ? findTarget('auto') : targetNamed(flags.target);
  const compiled = compile(checkpoint, target, toBuildConfig(flags));
  const weights = [...checkpoint.tensors.tensors.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  process.stdout.write(inspectCompiled(compiled, weights, flags, target));
}

/** Opens the engine and tells what it takes then, as the device itself counts. */
async function measureLoaded(engineDir: string, flags: Flags): Promise<string> {
  const { device, gpuMemory, kvCacheTokens, kvCacheFreeGpuMemFraction } = flags;
  await using session = await openSession({
    engineDir,
    target: 'auto',
    ...(device === undefined ? {} : { device }),
    ...(gpuMemory === undefined ? {} : { gpuMemory }),
    kvCacheConfig: {
      ...(kvCacheTokens === undefined ? {} : { maxTokens: kvCacheTokens }),
      ...(kvCacheFreeGpuMemFraction === undefined ? {} : { freeGpuMemoryFraction: kvCacheFreeGpuMemFraction }),
    },
  });
  const loaded = session.memory();
  if (flags.json) return `${JSON.stringify({ loaded, numBlocks: session.limits.numBlocks }, null, 2)}\n`;
  const { weights, arena, inputs, scratch = 0, kvCache } = loaded.program;
  const held = weights + arena + inputs + scratch + kvCache;
  const { total, free, used } = loaded.device;
  return [
    'loaded:',
    `weights               ${formatBytes(weights)}`,
    `arena                 ${formatBytes(arena)}`,
    `step inputs           ${formatBytes(inputs)}`,
    `scratch               ${formatBytes(scratch)}`,
    `KV cache              ${formatBytes(kvCache)}  (${session.limits.numBlocks} blocks of ${session.limits.tokensPerBlock} tokens)`,
    ...(used === undefined
      ? []
      : [
          `kernels and driver    ${formatBytes(Math.max(0, used - held))}`,
          `taken in all          ${formatBytes(used)}  (measured)`,
        ]),
    `free                  ${formatBytes(free)} of ${formatBytes(total)}`,
    '',
  ].join('\n');
}

export function addInspect(program: Command): void {
  const command = program
    .command('inspect')
    .summary('show an engine’s plan and memory, or a checkpoint’s graph')
    .description('Shows what is in an engine, or what the compiler makes of a checkpoint at every stage.')
    .argument('<model>', 'engine folder, checkpoint folder, GGUF file or Hugging Face id')
    .option('--graph <stage>', 'the graph after a stage: trace, or the name of a pass')
    .addOption(
      new Option('--format <form>', 'how --graph is written').choices(['text', 'mermaid', 'dot']).default('text'),
    )
    .option('--passes', 'list the passes and how many nodes each leaves')
    .option('--plan', 'the launches with their arguments')
    .option('--memory', 'what takes how much memory')
    .option('--load', 'opens the engine and measures what it takes')
    .option('--json', 'as JSON');
  runtimeOptions(buildOptions(sourceOptions(command))).action(
    async (model: string, flags: Flags) => await inspect(model, flags),
  );
}
