// `npm run bench NAME`: runs bench/NAME.mjs on the built package. Without a name it lists them.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('../bench/', import.meta.url));
const names = readdirSync(folder)
  .filter((name) => name.endsWith('.mjs'))
  .map((name) => name.replace('.mjs', ''));
const [name, ...rest] = process.argv.slice(2);
if (name === undefined || !names.includes(name)) {
  const about = (file) => readFileSync(`${folder}${file}.mjs`, 'utf8').split('\n')[0].replace('// ', '');
  process.stderr.write(
    `usage: npm run bench NAME\n${names.map((each) => `  ${each.padEnd(12)} ${about(each)}`).join('\n')}\n`,
  );
  process.exit(name === undefined ? 0 : 2);
}
process.exit(spawnSync(process.execPath, [`${folder}${name}.mjs`, ...rest], { stdio: 'inherit' }).status ?? 1);
