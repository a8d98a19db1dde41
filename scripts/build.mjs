// Compiles src/ to dist/, copies what is not TypeScript (kernel sources) beside it, and bundles web/, the dashboard, into dist/web.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
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
for (const room of ['kernels', 'targets', 'serve']) {
  cpSync(join(root, 'src', room), join(dist, room), {
    recursive: true,
    filter: (path) => !/\.tsx?$/.test(path),
  });
}
const main = join(dist, 'cli', 'main.js');
if (existsSync(main)) chmodSync(main, 0o755);
await buildWeb(join(root, 'web'), join(dist, 'web'));

/** One script and one style sheet, named by their content, and the page that names them. */
async function buildWeb(from, to) {
  const { build } = await import('rolldown');
  const { output } = await build({
    input: join(from, 'main.ts'),
    output: { dir: to, format: 'esm', entryFileNames: 'app-[hash].js', minify: true, codeSplitting: false },
    platform: 'browser',
    logLevel: 'warn',
  });
  const style = readFileSync(join(from, 'style.css'), 'utf8')
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/\n\s*/g, '\n');
  const styleName = `style-${createHash('sha256').update(style).digest('hex').slice(0, 8)}.css`;
  writeFileSync(join(to, styleName), style);
  const page = readFileSync(join(from, 'index.html'), 'utf8');
  const named = { '%STYLE%': styleName, '%APP%': output[0].fileName };
  writeFileSync(
    join(to, 'index.html'),
    page.replace(/%STYLE%|%APP%/g, (name) => `/dashboard/${named[name]}`),
  );
}
