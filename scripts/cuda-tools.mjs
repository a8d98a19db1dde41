// Fetches NVRTC into .cuda/ from PyPI by pip, so that the CUDA kernels can be compiled and tested on a machine without a GPU or the CUDA toolkit.
// The kernels need no CUDA header. Add --inspect for cuobjdump and nvdisasm as well.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = join(dirname(dirname(fileURLToPath(import.meta.url))), '.cuda');
const inspect = process.argv.includes('--inspect');
const packages = [
  { name: 'nvidia-cuda-nvrtc==13.0.88', file: 'nvidia/cu13/lib/libnvrtc.so.13' },
  ...(inspect
    ? [
        { name: 'nvidia-cuda-cuobjdump==13.2.51', file: 'nvidia/cu13/bin/cuobjdump' },
        { name: 'nvidia-cuda-nvdisasm==13.2.51', file: 'nvidia/cu13/bin/nvdisasm' },
      ]
    : []),
];
const missing = packages.filter(({ file }) => !existsSync(join(folder, file)));
if (missing.length > 0) {
  const pip = ['-m', 'pip', 'install', '--quiet', '--no-deps', '--disable-pip-version-check', '--target', folder];
  const { status, error } = spawnSync('python3', [...pip, ...missing.map(({ name }) => name)], { stdio: 'inherit' });
  if (error !== undefined || status !== 0) {
    console.error(`pip could not fetch ${missing.map(({ name }) => name).join(', ')}`);
    process.exit(1);
  }
}
const bin = join(folder, 'nvidia/cu13/bin');
if (existsSync(bin)) for (const file of readdirSync(bin)) chmodSync(join(bin, file), 0o755);
console.log(join(folder, 'nvidia/cu13'));
