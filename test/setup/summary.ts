// The last line of a test run: how many tests passed, failed and were skipped. A file that could not be loaded counts as one failure.
import { writeSync } from 'node:fs';
import type { Reporter, TestModule } from 'vitest/node';

export default class Summary implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly unknown[]): void {
    const counts = { passed: 0, failed: unhandledErrors.length, skipped: 0, pending: 0 };
    for (const module of modules) {
      const states = [...module.children.allTests()].map((test) => test.result().state);
      for (const state of states) counts[state]++;
      if (!module.ok() && !states.includes('failed')) counts.failed++;
    }
    const { passed, failed, skipped, pending } = counts;
    // At the process's end, so that it follows whatever the other reporters still print.
    process.once('exit', () => writeSync(1, `${passed} passed, ${failed} failed, ${skipped + pending} skipped\n`));
  }
}
