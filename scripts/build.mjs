// Compiles src/ to dist/ and copies what is not TypeScript (kernel sources) beside it.
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
let compiler;
try {
  compiler = join(dirname(require.resolve('typescript/package.json')), 'bin', 'tsc');
} catch {
  // Installed without development dependencies: nothing to compile with, dist/ came with the package.
  process.exit(0);
}
const dist = join(root, 'dist');
rmSync(dist, { recursive: true, force: true });
const { status } = spawnSync(process.execPath, [compiler, '-p', join(root, 'tsconfig.json')], { stdio: 'inherit' });
if (status !== 0) process.exit(status ?? 1);
for (const room of ['kernels', 'targets']) {
  cpSync(join(root, 'src', room), join(dist, room), {
    recursive: true,
    filter: (path) => !/\.tsx?$/.test(path),
  });
}
const main = join(dist, 'cli', 'main.js');
if (existsSync(main)) chmodSync(main, 0o755);
