// Maps a model's parameter names to tensors of a checkpoint. Patterns name what varies: 'transformer.layers.{n}.attention.q.{p}'.
import { GraphError } from '../../base/errors.ts';
import { source, type WeightExpr } from '../checkpoint/weights.ts';

/** What the braces of a pattern stood for. */
export type Captures = Readonly<Record<string, string>>;

/** A tensor's name (with the pattern's braces), or a function that makes the recipe. */
export type WeightRule = string | ((captures: Captures) => WeightExpr);

/** Pattern of parameter names → rule. */
export type WeightMap = Readonly<Record<string, WeightRule>>;

function fill(template: string, captures: Captures): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => captures[name] ?? '');
}

/** A function from parameter name to recipe; the first pattern that matches decides. Throws GraphError when none does. */
export function compileWeightMap(map: WeightMap): (parameter: string) => WeightExpr {
  const rules = Object.entries(map).map(([pattern, rule]) => {
    const text = pattern.replace(/[.*+?^$()|[\]\\]/g, '\\$&').replace(/\{(\w+)\}/g, '(?<$1>[^.]+)');
    return { test: new RegExp(`^${text}$`), rule };
  });
  return (parameter) => {
    for (const { test, rule } of rules) {
      const match = test.exec(parameter);
      if (match === null) continue;
      const captures: Captures = { ...match.groups };
      return typeof rule === 'string' ? source(fill(rule, captures)) : rule(captures);
    }
    throw new GraphError('no rule of the weight map names this parameter', {
      where: parameter,
      expected: `one of ${Object.keys(map).join(', ')}`,
    });
  };
}
