// Ratios as bars: one a measure, a line where both peers are equal.
const escaped = (text) => text.replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c]);

/** `rows`: {label, ratio, wanted}; a bar is pale where it is below what is wanted. */
export function ratioChart(title, rows) {
  const [left, width, line, top] = [300, 420, 24, 56];
  const most = Math.max(3, ...rows.map(({ ratio }) => ratio)) * 1.05;
  const x = (ratio) => left + (width * ratio) / most;
  const height = top + rows.length * line + 36;
  const bars = rows.map(({ label, ratio, wanted }, i) => {
    const y = top + i * line;
    return [
      `<text x="${left - 10}" y="${y + 14}" text-anchor="end">${escaped(label)}</text>`,
      `<rect x="${left}" y="${y + 2}" width="${(x(ratio) - left).toFixed(1)}" height="${line - 8}" fill="${ratio >= wanted ? '#2a7f62' : '#c9a227'}"/>`,
      `<line x1="${x(wanted).toFixed(1)}" x2="${x(wanted).toFixed(1)}" y1="${y}" y2="${y + line - 4}" stroke="#222" stroke-dasharray="2 2"/>`,
      `<text x="${(x(ratio) + 6).toFixed(1)}" y="${y + 14}">${ratio.toFixed(2)} ×</text>`,
    ].join('\n');
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${left + width + 80}" height="${height}" font-family="sans-serif" font-size="13">`,
    `<title>${escaped(title)}</title>`,
    '<rect width="100%" height="100%" fill="#fff"/>',
    `<text x="16" y="24" font-size="16">${escaped(title)}</text>`,
    ...bars,
    `<line x1="${x(1).toFixed(1)}" x2="${x(1).toFixed(1)}" y1="${top - 8}" y2="${height - 28}" stroke="#b00020"/>`,
    `<text x="${x(1).toFixed(1)}" y="${height - 12}" text-anchor="middle" fill="#b00020">as fast</text>`,
    '</svg>',
    '',
  ].join('\n');
}
