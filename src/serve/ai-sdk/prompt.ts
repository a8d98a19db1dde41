// From a call of Vercel's AI SDK to the body of a chat completion, which the same code checks and starts as one that came over HTTP.
import type {
  LanguageModelV3CallOptions,
  LanguageModelV3Message,
  LanguageModelV3ToolResultPart,
  SharedV3Warning,
} from '@ai-sdk/provider';

type Json = Record<string, unknown>;
type Part = Exclude<LanguageModelV3Message['content'], string>[number];

/** Name under which `providerOptions` has fields of ours. */
export const providerName = 'typert';

function textOf(parts: readonly Part[], warnings: SharedV3Warning[]): string {
  return parts
    .map((part) => {
      if (part.type === 'text') return part.text;
      if (part.type === 'file')
        warnings.push({ type: 'unsupported', feature: `${part.mediaType} in prompts`, details: 'it is left out' });
      return '';
    })
    .join('');
}

function resultText({ output }: LanguageModelV3ToolResultPart): string {
  switch (output.type) {
    case 'text':
    case 'error-text':
      return output.value;
    case 'execution-denied':
      return output.reason ?? 'The call was not allowed.';
    default:
      return JSON.stringify(output.value);
  }
}

function messagesOf(message: LanguageModelV3Message, warnings: SharedV3Warning[]): Json[] {
  switch (message.role) {
    case 'system':
      return [{ role: 'system', content: message.content }];
    case 'user':
      return [{ role: 'user', content: textOf(message.content, warnings) }];
    case 'assistant': {
      const { content } = message;
      const reasoning = content.flatMap((part) => (part.type === 'reasoning' ? [part.text] : [])).join('');
      const calls = content.flatMap((part) =>
        part.type === 'tool-call'
          ? [
              {
                id: part.toolCallId,
                type: 'function',
                function: { name: part.toolName, arguments: JSON.stringify(part.input) },
              },
            ]
          : [],
      );
      return [
        {
          role: 'assistant',
          content: textOf(content, warnings),
          ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
          ...(calls.length === 0 ? {} : { tool_calls: calls }),
        },
      ];
    }
    case 'tool':
      return message.content.flatMap((part) =>
        part.type === 'tool-result'
          ? [{ role: 'tool', tool_call_id: part.toolCallId, name: part.toolName, content: resultText(part) }]
          : [],
      );
    default:
      return message satisfies never;
  }
}

function formatOf(format: LanguageModelV3CallOptions['responseFormat']): Json {
  if (format?.type !== 'json') return {};
  return {
    response_format:
      format.schema === undefined
        ? { type: 'json_object' }
        : { type: 'json_schema', json_schema: { name: format.name ?? 'answer', schema: format.schema } },
  };
}

function toolsOf({ tools, toolChoice }: LanguageModelV3CallOptions, warnings: SharedV3Warning[]): Json {
  const known = (tools ?? []).flatMap((tool) => {
    if (tool.type === 'function')
      return [
        {
          type: 'function',
          function: { name: tool.name, description: tool.description, parameters: tool.inputSchema },
        },
      ];
    warnings.push({ type: 'unsupported', feature: `provider tool ${tool.id}` });
    return [];
  });
  if (known.length === 0) return {};
  const choice =
    toolChoice?.type === 'tool' ? { type: 'function', function: { name: toolChoice.toolName } } : toolChoice?.type;
  return { tools: known, ...(choice === undefined ? {} : { tool_choice: choice }) };
}

/** The body, and what of the call it leaves out. Fields of `providerOptions.typert` (min_p, repetition_penalty, chat_template_kwargs …) are taken as they are. */
export function toBody(
  model: string,
  options: LanguageModelV3CallOptions,
): { readonly body: Json; readonly warnings: SharedV3Warning[] } {
  const warnings: SharedV3Warning[] = [];
  const given: Json = {
    max_completion_tokens: options.maxOutputTokens,
    temperature: options.temperature,
    top_p: options.topP,
    top_k: options.topK,
    presence_penalty: options.presencePenalty,
    frequency_penalty: options.frequencyPenalty,
    stop: options.stopSequences,
    seed: options.seed,
  };
  const set = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  const messages = options.prompt.flatMap((message) => messagesOf(message, warnings));
  const more = options.providerOptions?.[providerName] ?? {};
  return {
    body: { ...set, ...formatOf(options.responseFormat), ...toolsOf(options, warnings), ...more, model, messages },
    warnings,
  };
}
