// Counting of open resources (devices, sessions, engines, workers), so that tests can prove that nothing leaks.

const open = new Map<string, number>();

/** Counts one open resource of `kind`; the returned function counts it closed, once. */
export function track(kind: string): () => void {
  open.set(kind, (open.get(kind) ?? 0) + 1);
  let closed = false;
  return () => {
    if (closed) return;
    closed = true;
    open.set(kind, open.get(kind)! - 1);
  };
}

/** How many resources of each kind are open in this thread; kinds at zero are left out. */
export function openResources(): Record<string, number> {
  return Object.fromEntries([...open].filter(([, count]) => count > 0));
}
