// Which CPUs the threads of the pool run on: one of each physical core that this process may use.
import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

function text(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}

/** '0-2,5' → [0, 1, 2, 5]. */
export function parseCpuList(list: string): number[] {
  return list.split(',').flatMap((part) => {
    const [first, last] = part.split('-').map(Number);
    if (part === '' || first === undefined || !Number.isInteger(first)) return [];
    return Array.from({ length: (last ?? first) - first + 1 }, (_, i) => first + i);
  });
}

/** CPUs that the container's quota is worth ("max 100000": no limit). */
function quota(): number {
  const [limit, period] = (text('/sys/fs/cgroup/cpu.max') ?? 'max').split(' ').map(Number);
  return limit === undefined || period === undefined || Number.isNaN(limit)
    ? Number.POSITIVE_INFINITY
    : Math.max(1, Math.floor(limit / period));
}

/** A CPU for each thread; -1: not pinned. Hyper-threads share the units that kernels use up, so one a core is taken. */
export function threadCpus(threads?: number): Int32Array {
  const allowed = parseCpuList(/^Cpus_allowed_list:\s*(\S+)/m.exec(text('/proc/self/status') ?? '')?.[1] ?? '');
  const folder = '/sys/devices/system/cpu';
  const seen = new Set<string>();
  const cores: number[] = [];
  let names: string[] = [];
  try {
    names = readdirSync(folder);
  } catch {
    // No sysfs here: threads are not pinned.
  }
  for (const cpu of allowed) {
    if (!names.includes(`cpu${cpu}`)) continue;
    const siblings = text(`${folder}/cpu${cpu}/topology/thread_siblings_list`) ?? String(cpu);
    if (seen.has(siblings)) continue;
    seen.add(siblings);
    cores.push(cpu);
  }
  const count = threads ?? Math.max(1, Math.min(cores.length || availableParallelism(), quota()));
  return Int32Array.from({ length: count }, (_, i) => (count <= cores.length ? cores[i]! : -1));
}
