// The package's version, for what is written to disk or told to people.
import { createRequire } from 'node:module';

/** From package.json, two folders above both src/base and dist/base. */
export const version: string = (createRequire(import.meta.url)('../../package.json') as { version: string }).version;
