// `typert doctor`: what works on this machine, and what to install for more.
import { accessSync, constants, existsSync, mkdirSync } from 'node:fs';
import { arch, cpus, freemem, platform, totalmem } from 'node:os';
import type { Command } from 'commander';
import { readEnv } from '../../base/env.ts';
import { version } from '../../base/version.ts';
import { targets } from '../../targets/index.ts';
import { formatBytes } from '../terminal.ts';

interface Finding {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
  readonly remedy?: string;
}

function findings(): Finding[] {
  const env = readEnv();
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const nodeOk = major > 20 || (major === 20 && minor >= 19);
  const list: Finding[] = [
    {
      name: 'node',
      ok: nodeOk,
      detail: `${process.version} on ${platform()} ${arch()}`,
      ...(nodeOk ? {} : { remedy: 'Install Node.js 20.19 or newer' }),
    },
    {
      name: 'machine',
      ok: true,
      detail: `${cpus().length} × ${cpus()[0]?.model ?? 'unknown processor'}, ${formatBytes(freemem())} of ${formatBytes(totalmem())} free`,
    },
  ];
  for (const target of targets) {
    const status = target.probe();
    list.push({
      name: `target ${target.name}`,
      ok: status.available,
      detail: status.detail,
      ...(status.remedy === undefined ? {} : { remedy: status.remedy }),
    });
  }
  try {
    if (!existsSync(env.cacheDir)) mkdirSync(env.cacheDir, { recursive: true });
    accessSync(env.cacheDir, constants.W_OK);
    list.push({ name: 'cache', ok: true, detail: env.cacheDir });
  } catch {
    list.push({
      name: 'cache',
      ok: false,
      detail: `${env.cacheDir} cannot be written`,
      remedy: 'Set TYPERT_CACHE to a folder that can',
    });
  }
  const { hub } = env;
  list.push({
    name: 'hub',
    ok: true,
    detail: `${hub.endpoint}${hub.offline ? ', offline' : ''}, ${hub.token === undefined ? 'no token' : 'token set'}, cache ${hub.cacheDir}`,
  });
  return list;
}

export function addDoctor(program: Command): void {
  program
    .command('doctor')
    .summary('tell what works on this machine')
    .description('Tells which targets, compilers and libraries are here, and what to install for the rest.')
    .option('--json', 'print as JSON')
    .action((flags: { json?: boolean }) => {
      const list = findings();
      if (flags.json) {
        process.stdout.write(`${JSON.stringify({ version, findings: list }, null, 2)}\n`);
        return;
      }
      process.stdout.write(`typert ${version}\n`);
      const width = Math.max(...list.map(({ name }) => name.length));
      for (const { name, ok, detail, remedy } of list) {
        process.stdout.write(
          `${ok ? '✓' : '✗'} ${name.padEnd(width)}  ${detail}\n${remedy === undefined ? '' : `${' '.repeat(width + 4)}→ ${remedy}\n`}`,
        );
      }
    });
}
