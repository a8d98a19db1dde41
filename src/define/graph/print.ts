// A graph as text (stable: tests keep snapshots), as Mermaid and as Graphviz DOT.
import { printShape } from '../../base/expr.ts';
import { type AnyNode, type Graph, orderedInputs, type Value } from './graph.ts';

const type = (value: Value): string => `${value.dtype}${printShape(value.shape)}`;

function printAttrs(attrs: object): string {
  const entries = Object.entries(attrs).filter(([, value]) => value !== undefined);
  return entries.length === 0
    ? ''
    : ` {${entries.map(([name, value]) => `${name}: ${JSON.stringify(value)}`).join(', ')}}`;
}

/** The graph as text: inputs, weights, then one line a node. */
export function printGraph(graph: Graph): string {
  const weights = new Set(graph.weights.map(({ value }) => value.id));
  const refer = (value: Value): string => (weights.has(value.id) ? `@${value.name}` : `%${value.id}`);
  const line = (node: AnyNode): string => {
    const outputs = Object.values(node.outputs).map((value) => `%${value.id}: ${type(value)}`);
    const inputs = orderedInputs(node).map(([name, value]) => `${name}=${refer(value)}`);
    return `  ${outputs.join(', ')} = ${node.op}(${inputs.join(', ')})${printAttrs(node.attrs)}  # ${node.scope}`;
  };
  return [
    `graph ${graph.name} {`,
    ...graph.inputs.map((value) => `  input %${value.id}: ${type(value)} ${value.name}`),
    ...graph.weights.map(({ value }) => `  weight @${value.name}: ${type(value)}`),
    ...graph.caches.map(
      (cache) =>
        `  cache ${cache.layer}: ${cache.numKvHeads} heads of ${cache.headDim}+${cache.valueDim}${cache.window === undefined ? '' : `, window ${cache.window}`}`,
    ),
    ...graph.nodes.map(line),
    ...Object.entries(graph.outputs).map(([name, value]) => `  output ${name} = ${refer(value)}`),
    '}',
    '',
  ].join('\n');
}

/** Edges between nodes (inputs and weights are left out: they would drown the picture). */
function edges(graph: Graph): { from: number; to: number; label: string }[] {
  const maker = new Map<number, number>();
  graph.nodes.forEach((node, index) => {
    for (const value of Object.values(node.outputs)) maker.set(value.id, index);
  });
  return graph.nodes.flatMap((node, to) =>
    orderedInputs(node).flatMap(([, value]) => {
      const from = maker.get(value.id);
      return from === undefined ? [] : [{ from, to, label: type(value) }];
    }),
  );
}

/** The nodes and the values between them as a Mermaid flowchart. */
export function printMermaid(graph: Graph): string {
  return [
    'flowchart TD',
    ...graph.nodes.map((node, index) => `  n${index}["${node.op}<br/><small>${node.scope}</small>"]`),
    ...edges(graph).map(({ from, to, label }) => `  n${from} -- "${label}" --> n${to}`),
    '',
  ].join('\n');
}

/** The same in Graphviz's DOT. */
export function printDot(graph: Graph): string {
  return [
    `digraph "${graph.name}" {`,
    '  node [shape=box, fontname="sans-serif"];',
    ...graph.nodes.map((node, index) => `  n${index} [label="${node.op}\\n${node.scope}"];`),
    ...edges(graph).map(({ from, to, label }) => `  n${from} -> n${to} [label="${label}"];`),
    '}',
    '',
  ].join('\n');
}
