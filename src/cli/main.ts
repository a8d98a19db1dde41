#!/usr/bin/env node
// The command `typert`. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
import { Command, CommanderError } from 'commander';
import { readEnv } from '../base/env.ts';
import { version } from '../base/version.ts';
import { addBench } from './commands/bench.ts';
import { addBuild } from './commands/build.ts';
import { addConvert } from './commands/convert.ts';
import { addDoctor } from './commands/doctor.ts';
import { addInspect } from './commands/inspect.ts';
import { addRun } from './commands/run.ts';
import { addServe } from './commands/serve.ts';
import { addTritonRepo } from './commands/triton-repo.ts';
import { reportError } from './terminal.ts';

/** Exit codes of commander's own messages: help and version are successes, the rest is wrong usage. */
function usageCode(error: CommanderError): number {
  return error.code === 'commander.helpDisplayed' ||
    error.code === 'commander.version' ||
    error.code === 'commander.help'
    ? 0
    : 2;
}

async function main(argv: readonly string[]): Promise<number> {
  const program = new Command('typert')
    .description('Define a language model, compile it into an engine, run and serve it.')
    .version(version)
    .showSuggestionAfterError()
    .configureHelp({ showGlobalOptions: true })
    .exitOverride()
    .addHelpText(
      'after',
      '\nStart with:  typert run    (chat with the bundled model)\n             typert doctor (what works on this machine)',
    );
  addRun(program);
  addServe(program);
  addTritonRepo(program);
  addBuild(program);
  addBench(program);
  addConvert(program);
  addInspect(program);
  addDoctor(program);
  for (const command of program.commands)
    command.exitOverride().showHelpAfterError(`(typert ${command.name()} --help tells more)`);
  const json = argv.includes('--json');
  try {
    const { debug } = readEnv();
    try {
      await program.parseAsync(argv, { from: 'user' });
      return Number(process.exitCode ?? 0);
    } catch (error) {
      return error instanceof CommanderError ? usageCode(error) : reportError(error, { json, debug: debug > 0 });
    }
  } catch (error) {
    return reportError(error, { json, debug: false });
  }
}

// A reader that goes away (`| head`) ends the program quietly.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});
process.exitCode = await main(process.argv.slice(2));
