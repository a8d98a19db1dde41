// A JSON schema as a grammar. xgrammar makes it, but for what its version 0.1.27 gets wrong: the bounds of integers (0 to 120 lets 129 pass), and control characters in texts of bounded
// length. Those parts are put into its grammar here.
import type { Grammar } from './xgrammar.ts';

/** What xgrammar lets stand in a text of bounded length without an escape, and what JSON does (RFC 8259, section 7). */
const boundedCharacter = String.raw`[^\"\\\r\n]`;
const character = String.raw`[^\0-\x1f\"\\]`;

/** Keywords whose value is a schema, a list of them, or schemas by name. */
const schemaKeys = ['items', 'additionalProperties', 'unevaluatedProperties', 'unevaluatedItems', 'contains', 'not'];
const listKeys = ['anyOf', 'oneOf', 'allOf', 'prefixItems'];
const mapKeys = ['properties', 'patternProperties', '$defs', 'definitions', 'dependentSchemas'];

type Json = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

type Order = -1 | 0 | 1;

/**
 * Rules for the integers from `low` to `high`, both included; undefined: no bound. `low` is not greater than `high`. The rules begin with one called `name`. Of two alternatives none begins
 * like the other: xgrammar 0.1.27 may take them for one.
 */
export function integerRules(name: string, low: bigint | undefined, high: bigint | undefined): string {
  const rules: string[] = [];
  const alternatives: string[] = [];
  if ((low === undefined || low <= 0n) && (high === undefined || high >= 0n)) alternatives.push('"0"');
  if (high === undefined || high > 0n)
    alternatives.push(...naturalRules(`${name}_p`, low === undefined || low < 1n ? 1n : low, high, rules));
  if (low === undefined || low < 0n) {
    const least = high === undefined || high >= 0n ? 1n : -high;
    const negative = naturalRules(`${name}_n`, least, low === undefined ? undefined : -low, rules);
    alternatives.push(`"-" (${negative.join(' | ')})`);
  }
  return [`${name} ::= ${alternatives.join(' | ')}`, ...rules].join('\n');
}

/** The alternatives of the numbers from `low` ≥ 1 to `high`, as they begin; what follows the first digit becomes rules. */
function naturalRules(name: string, low: bigint, high: bigint | undefined, rules: string[]): string[] {
  const least = String(low);
  const most = high === undefined ? undefined : String(high);
  // With `places` digits read: how they compare with as many first ones of the bounds.
  const ruleOf = new Map<string, string | undefined>();
  const accepts = (places: number, toLow: Order, toHigh: Order): boolean =>
    (places > least.length || (places === least.length && toLow >= 0)) &&
    (most === undefined || places < most.length || (places === most.length && toHigh <= 0));
  const next = (digit: number, at: number, order: Order, bound: string | undefined): Order => {
    if (bound === undefined || at >= bound.length || order !== 0) return order;
    return Math.sign(digit - Number(bound[at])) as Order;
  };
  /** What may follow, digit by digit: neighbours with the same continuation are one class. */
  const follow = (places: number, toLow: Order, toHigh: Order): string[] => {
    const runs: { from: number; to: number; rule: string }[] = [];
    for (let digit = places === 0 ? 1 : 0; digit <= 9; digit++) {
      const rule = state(places + 1, next(digit, places, toLow, least), next(digit, places, toHigh, most));
      if (rule === undefined) continue;
      const run = runs.at(-1);
      if (run !== undefined && run.rule === rule && run.to === digit - 1) run.to = digit;
      else runs.push({ from: digit, to: digit, rule });
    }
    return runs.map(({ from, to, rule }) => `[${from}-${to}] ${rule}`);
  };
  /** The rule of what may follow; undefined when nothing in range does. */
  function state(places: number, toLow: Order, toHigh: Order): string | undefined {
    // Longer than the lower bound: only the upper one matters, and without that nothing does.
    const free = most === undefined && places > least.length;
    const key = free ? 'any' : `${places}_${places > least.length ? 1 : toLow + 1}_${toHigh + 1}`;
    if (ruleOf.has(key)) return ruleOf.get(key);
    const rule = `${name}_${key}`;
    if (free) {
      ruleOf.set(key, rule);
      rules.push(`${rule} ::= "" | [0-9] ${rule}`);
      return rule;
    }
    const alternatives = [
      ...(accepts(places, toLow, toHigh) ? ['""'] : []),
      ...(most !== undefined && places >= most.length ? [] : follow(places, toLow, toHigh)),
    ];
    ruleOf.set(key, alternatives.length === 0 ? undefined : rule);
    if (alternatives.length === 0) return undefined;
    rules.push(`${rule} ::= ${alternatives.join(' | ')}`);
    return rule;
  }
  return follow(0, 0, 0);
}

const ascending = (a: bigint, b: bigint): number => (a < b ? -1 : 1);

interface Bounds {
  readonly low: bigint | undefined;
  readonly high: bigint | undefined;
}

/** The bounds of a schema's integers; undefined when there are none, or none that can be held. */
function boundsOf({ minimum, maximum, exclusiveMinimum, exclusiveMaximum }: Json): Bounds | undefined {
  const given = [minimum, maximum, exclusiveMinimum, exclusiveMaximum].filter((value) => value !== undefined);
  if (given.length === 0 || !given.every((value) => typeof value === 'number' && Number.isFinite(value)))
    return undefined;
  const lows = [
    ...(typeof minimum === 'number' ? [BigInt(Math.ceil(minimum))] : []),
    ...(typeof exclusiveMinimum === 'number' ? [BigInt(Math.floor(exclusiveMinimum)) + 1n] : []),
  ];
  const highs = [
    ...(typeof maximum === 'number' ? [BigInt(Math.floor(maximum))] : []),
    ...(typeof exclusiveMaximum === 'number' ? [BigInt(Math.ceil(exclusiveMaximum)) - 1n] : []),
  ];
  const [low, high] = [lows.sort(ascending).at(-1), highs.sort(ascending)[0]];
  // Nothing lies between them: xgrammar says so.
  if (low !== undefined && high !== undefined && low > high) return undefined;
  return { low, high };
}

/** A schema in which integers with bounds are constants that the grammar's text is searched for. */
class Marked {
  readonly #prefix: string;
  readonly bounds: Bounds[] = [];

  constructor(text: string) {
    let prefix = 'integer';
    while (text.includes(prefix)) prefix += '_';
    this.#prefix = prefix;
  }

  mark(at: number): string {
    return `${this.#prefix}${at}x`;
  }

  schema(value: unknown): unknown {
    if (!isObject(value)) return value;
    const own = Object.fromEntries(
      Object.entries(value).map(([key, entry]) => {
        if (schemaKeys.includes(key))
          return [key, Array.isArray(entry) ? entry.map((one) => this.schema(one)) : this.schema(entry)];
        if (listKeys.includes(key) && Array.isArray(entry)) return [key, entry.map((one) => this.schema(one))];
        if (mapKeys.includes(key) && isObject(entry))
          return [key, Object.fromEntries(Object.entries(entry).map(([name, one]) => [name, this.schema(one)]))];
        return [key, entry];
      }),
    );
    const types = [value.type].flat();
    if (!types.includes('integer') || value.enum !== undefined || value.const !== undefined) return own;
    const bounds = boundsOf(value);
    if (bounds === undefined) return own;
    const constant = { const: this.mark(this.bounds.push(bounds) - 1) };
    const others = types.filter((type) => type !== 'integer');
    return others.length === 0 ? constant : { anyOf: [constant, { ...own, type: others }] };
  }
}

/** EBNF of the JSON texts that a schema describes, with `maxWhitespace` white space between two parts at most. Rejects with what xgrammar says of a schema that is none. */
export async function jsonGrammar(grammars: typeof Grammar, schema: string, maxWhitespace: number): Promise<string> {
  const marked = new Marked(schema);
  const text = JSON.stringify(marked.schema(JSON.parse(schema)));
  const made = await grammars.fromJSONSchema(text, true, undefined, undefined, true, maxWhitespace);
  let grammar = made.toString();
  made.dispose();
  grammar = grammar.replaceAll(boundedCharacter, character);
  for (const [at, { low, high }] of marked.bounds.entries()) {
    const mark = marked.mark(at);
    grammar = `${grammar.replaceAll(`"\\"${mark}\\""`, mark)}\n${integerRules(mark, low, high)}`;
  }
  return grammar;
}
