// A simulation's steps to look at: as text, one line a request and one letter a step, and as SVG in simulated time.
import type { SimulatedStep } from './replica.ts';

/** Requests of the steps, in the order in which they first took part. */
function requestsOf(steps: readonly SimulatedStep[]): number[] {
  return [...new Set(steps.flatMap(({ parts }) => parts.map(({ requestId }) => requestId)))];
}

/** One line a request: `C` a part of its prompt, `g` a generated token, `p` preempted, `-` waiting between two of its steps. */
export function timelineText(steps: readonly SimulatedStep[]): string {
  const width = Math.max(...requestsOf(steps).map((id) => String(id).length), 1);
  const lines = requestsOf(steps).map((id) => {
    const letters = steps.map(({ parts, preempted }) => {
      const part = parts.find(({ requestId }) => requestId === id);
      if (part !== undefined) return part.kind === 'context' ? 'C' : 'g';
      return preempted.includes(id) ? 'p' : ' ';
    });
    const [first, last] = [
      letters.findIndex((letter) => letter !== ' '),
      letters.findLastIndex((letter) => letter !== ' '),
    ];
    const line = letters.map((letter, i) => (letter === ' ' && i > first && i < last ? '-' : letter)).join('');
    return `${String(id).padStart(width)} ${line.trimEnd()}`;
  });
  return `${lines.join('\n')}\n`;
}

const colours = { context: '#4269d0', generation: '#3ca951', preempted: '#ff725c' } as const;
const row = 12;

/** A row a request, a rectangle a step: its prompt's parts, its tokens, and where it had to give way. */
export function timelineSvg(steps: readonly SimulatedStep[], width = 960): string {
  const requests = requestsOf(steps);
  const rows = new Map(requests.map((id, i) => [id, i]));
  const end = steps.reduce((most, step) => Math.max(most, step.end), 1);
  const x = (time: number): string => ((time / end) * (width - 60) + 50).toFixed(1);
  const rectangle = (id: number, step: SimulatedStep, kind: keyof typeof colours, tip: string): string => {
    const at = x(step.start);
    const wide = Math.max(0.5, Number(x(step.end)) - Number(at)).toFixed(1);
    const y = 20 + rows.get(id)! * row;
    return `<rect x="${at}" y="${y}" width="${wide}" height="${row - 2}" fill="${colours[kind]}"><title>${tip}</title></rect>`;
  };
  const parts = steps.flatMap((step) => [
    ...step.parts.map(({ requestId, kind, numTokens }) =>
      rectangle(requestId, step, kind, `request ${requestId}: ${kind} of ${numTokens}, ${step.start.toFixed(1)} ms`),
    ),
    ...step.preempted
      .filter((id) => rows.has(id))
      .map((id) => rectangle(id, step, 'preempted', `request ${id} gives way, ${step.start.toFixed(1)} ms`)),
  ]);
  const labels = requests.map((id, i) => `<text x="44" y="${20 + i * row + 9}" text-anchor="end">${id}</text>`);
  const height = 34 + requests.length * row;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="9">`,
    '<title>Steps of simulated requests</title>',
    `<text x="50" y="12">requests over ${end.toFixed(0)} ms: blue context, green generation, red preempted</text>`,
    ...labels,
    ...parts,
    '</svg>\n',
  ].join('\n');
}
