// Python, where it is there with what a test needs: `.ci/run` puts an environment with the clients before the rest of PATH.
import { spawn, spawnSync } from 'node:child_process';

/** Whether `python3` can import all of these. */
export function pythonHas(modules: readonly string[]): boolean {
  return spawnSync('python3', ['-c', `import ${modules.join(', ')}`], { timeout: 120_000 }).status === 0;
}

/** Runs a program to its end. */
export function runPython(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<{ readonly code: number | null; readonly output: string }> {
  const child = spawn('python3', args, { env: { ...process.env, ...env } });
  let output = '';
  child.stdout.on('data', (chunk) => (output += String(chunk)));
  child.stderr.on('data', (chunk) => (output += String(chunk)));
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, output })));
}
