// What a model's answers look like, found out once when it is loaded: the family of its tool calls, that of its reasoning, and whether its template shows tools at all.

import { UsageError } from '../base/errors.ts';
import type { ParserChoice, ServedLLM } from './model.ts';
import { type ReasoningFamily, reasoningFamilies } from './parsers/reasoning.ts';
import { type ToolFamily, toolFamilies } from './parsers/tools.ts';

export interface ChatTraits {
  readonly tools: ToolFamily | undefined;
  readonly reasoning: ReasoningFamily | undefined;
  /** Whether the prompt tells the model which tools there are. */
  readonly templateShowsTools: boolean;
  /** Texts of the tokens that end an answer. */
  readonly endTexts: readonly string[];
}

const probe = {
  type: 'function',
  function: { name: 'probe', description: 'probe', parameters: { type: 'object', properties: {} } },
};

function showsTools({ chatTemplate }: ServedLLM): boolean {
  if (chatTemplate === undefined) return false;
  const messages = [{ role: 'user', content: 'x' }];
  try {
    return chatTemplate.render(messages, { tools: [probe] }) !== chatTemplate.render(messages);
  } catch {
    return false;
  }
}

function choose<T>(table: Readonly<Record<string, T>>, name: string, option: string): T | undefined {
  if (name === 'none') return undefined;
  const found = table[name];
  if (found !== undefined) return found;
  throw new UsageError('no such parser', {
    where: option,
    expected: ['auto', 'none', ...Object.keys(table)].join(', '),
    got: name,
  });
}

/** Throws UsageError for a parser that there is not. */
export function findTraits(
  llm: ServedLLM,
  { toolParser = 'auto', reasoningParser = 'auto' }: ParserChoice,
): ChatTraits {
  const { tokenizer } = llm;
  const known = (token: string): boolean => tokenizer?.tokenToId(token) !== undefined;
  const tools =
    toolParser === 'auto'
      ? Object.values(toolFamilies).find(({ token }) => known(token))
      : choose(toolFamilies, toolParser, 'toolParser');
  const reasoning =
    reasoningParser === 'auto'
      ? known('<|channel|>') && known('<|message|>')
        ? reasoningFamilies['gpt-oss']
        : known('<think>') && known('</think>')
          ? reasoningFamilies.qwen3
          : undefined
      : choose(reasoningFamilies, reasoningParser, 'reasoningParser');
  const endTexts =
    tokenizer?.eosTokenIds
      .map((id) => tokenizer.decode([id], { skipSpecialTokens: false }))
      .filter((text) => text !== '') ?? [];
  return { tools, reasoning, templateShowsTools: showsTools(llm), endTexts };
}
