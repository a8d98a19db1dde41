import { defineConfig } from 'vitest/config';

// Tests beside the source import the source. Tests under test/ import the package by its name, as a user does,
// which is the build in dist/ (worker threads need JavaScript files); the global set-up builds it first.
const entry = (path: string) => new URL(`./dist/${path}`, import.meta.url).pathname;

export default defineConfig({
  resolve: {
    alias: [
      { find: /^typert$/, replacement: entry('index.js') },
      { find: /^typert\/nn$/, replacement: entry('define/index.js') },
      { find: /^typert\/graph$/, replacement: entry('define/graph/index.js') },
      { find: /^typert\/engine$/, replacement: entry('compile/index.js') },
      { find: /^typert\/executor$/, replacement: entry('run/executor/index.js') },
      { find: /^typert\/serve$/, replacement: entry('serve/index.js') },
      { find: /^typert\/ai$/, replacement: entry('serve/ai-sdk/provider.js') },
    ],
  },
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    globalSetup: ['test/setup/build.ts'],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    reporters: ['default', './test/setup/summary.ts'],
  },
});
