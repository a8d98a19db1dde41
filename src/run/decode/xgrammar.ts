// Loads xgrammar (https://github.com/mlc-ai/xgrammar) from its npm package, which is one file of JavaScript with its WebAssembly inside. The file is CommonJS in a package that says
// it is ESM, so neither `import` nor `require` takes it: it is compiled as the CommonJS module that it is.
import { readFileSync } from 'node:fs';
import Module, { createRequire } from 'node:module';
import type * as XGrammar from '@mlc-ai/web-xgrammar';

export type { CompiledGrammar, Grammar, GrammarCompiler, GrammarMatcher } from '@mlc-ai/web-xgrammar';

/** The part of Node's Module that compiles a text; it is not in the type declarations. */
interface CompilingModule {
  _compile(text: string, filename: string): void;
  exports: (console: Pick<Console, 'log' | 'warn' | 'error'>) => typeof XGrammar;
}

/** A fresh instance of the library, with memory of its own. What it prints (its errors) goes to `say`. */
export function loadXGrammar(say: (line: string) => void): typeof XGrammar {
  const path = createRequire(import.meta.url).resolve('@mlc-ai/web-xgrammar');
  const text = readFileSync(path, 'utf8');
  const module = new Module(path) as unknown as CompilingModule;
  const head = 'module.exports = (console) => { const module = { exports: {} }; const exports = module.exports;';
  module._compile(`${head}\n${text}\nreturn module.exports; };`, path);
  const print = (...parts: unknown[]): void => say(parts.join(' '));
  return module.exports({ log: print, warn: print, error: print });
}
