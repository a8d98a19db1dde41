// `npm run wasm`: compiles src/kernels/generic/kernels.c to the WebAssembly module that serves machines without a C compiler, and notes the hash of
// its sources beside it. Needs clang with the wasm32 target and wasm-ld, version 16 or newer (apt install clang-19 lld-19).
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { folderTree, hashTexts, includeClosure } from '../dist/targets/jit/sources.js';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const kernels = join(root, 'src/kernels');
const out = join(root, 'src/targets/cpu/wasm');
const entry = 'generic/kernels.c';

/** A command under its plain or its versioned name. */
function find(command) {
  for (const suffix of ['', '-22', '-21', '-20', '-19', '-18', '-17', '-16']) {
    const { status, stdout } = spawnSync(command + suffix, ['--version'], { encoding: 'utf8' });
    const version = Number(/(?:version|LLD) (\d+)/.exec(stdout ?? '')?.[1] ?? 0);
    if (status === 0 && version >= 16) return command + suffix;
  }
  process.stderr.write(`${command} of version 16 or newer is not here: apt install clang-19 lld-19\n`);
  process.exit(1);
}

const [clang, linker] = [find('clang'), find('wasm-ld')];
const folder = mkdtempSync(join(tmpdir(), 'typert-wasm-'));
try {
  const object = join(folder, 'kernels.o');
  const linked = join(folder, 'kernels.wasm');
  const compile = [
    '--target=wasm32',
    '-std=gnu11',
    '-O3',
    '-msimd128',
    '-matomics',
    '-mbulk-memory',
    '-mmutable-globals',
    '-fno-math-errno',
    '-fno-trapping-math',
    '-fvisibility=hidden',
    '-Wall',
    '-Wno-unknown-pragmas',
    '-Wno-unused-function',
    '-nostdlibinc',
    '-isystem',
    join(kernels, 'include/wasm'),
    '-I',
    kernels,
    '-c',
    join(kernels, entry),
    '-o',
    object,
  ];
  execFileSync(clang, compile, { stdio: 'inherit' });
  mkdirSync(out, { recursive: true });
  const link = [
    '--no-entry',
    '--import-memory',
    '--shared-memory',
    '--max-memory=4294967296',
    '--export-dynamic',
    '--export=__stack_pointer',
    '--export=__heap_base',
    '-z',
    'stack-size=1048576',
    '--strip-all',
    object,
    '-o',
    linked,
  ];
  execFileSync(linker, link, { stdio: 'inherit' });
  writeFileSync(join(out, 'kernels.wasm.gz'), gzipSync(readFileSync(linked), { level: 9 }));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
const tree = folderTree(kernels);
const closure = includeClosure(tree, readFileSync(join(kernels, entry), 'utf8'), entry);
const shims = ['math.h', 'stdlib.h', 'string.h'].map((name) => tree.read(`include/wasm/${name}`));
const sources = hashTexts([tree.read(entry), ...[...closure].flat(), ...shims]);
const bytes = readFileSync(join(out, 'kernels.wasm.gz')).length;
const version = execFileSync(clang, ['--version'], { encoding: 'utf8' }).split('\n')[0];
writeFileSync(join(out, 'kernels.json'), `${JSON.stringify({ sources, compiler: version, bytes }, null, 2)}\n`);
process.stdout.write(`${bytes} bytes by ${version}\n`);
