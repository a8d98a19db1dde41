// `npm start`: builds the package when it is not built, then runs the bundled model. Words after `--` are the prompt.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const run = (args) => spawnSync(process.execPath, args, { stdio: 'inherit' });
if (!existsSync(main)) {
  const { status } = run([fileURLToPath(new URL('build.mjs', import.meta.url))]);
  if (status !== 0) process.exit(status ?? 1);
}
const words = process.argv.slice(2);
const prompt = words.length > 0 ? words : ['Tell me a story about a fox and a drum.'];
const model = fileURLToPath(new URL('../models/storyteller-7m', import.meta.url));
process.exit(run([main, 'run', model, '--stats', ...prompt]).status ?? 1);
