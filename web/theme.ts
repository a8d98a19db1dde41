// Light and dark: as the system says, unless the reader chose. Canvases ask here for the colours that the style sheet names.
import { h, memory } from './dom.ts';

const choices = ['auto', 'light', 'dark'] as const;
type Choice = (typeof choices)[number];
const labels: Readonly<Record<Choice, string>> = { auto: 'as the system', light: 'light', dark: 'dark' };
const signs: Readonly<Record<Choice, string>> = { auto: '◐', light: '○', dark: '●' };

const listeners = new Set<() => void>();
let palette: CSSStyleDeclaration | undefined;

/** Called when colours have changed. */
export function onTheme(listener: () => void): void {
  listeners.add(listener);
}

function changed(): void {
  palette = undefined;
  for (const listener of listeners) listener();
}

/** A colour of the style sheet, by the name of its variable. */
export function colour(name: string): string {
  palette ??= getComputedStyle(document.documentElement);
  return palette.getPropertyValue(`--${name}`).trim();
}

/** The button that goes through the choices. */
export function themeButton(): HTMLElement {
  const saved = memory.get('theme');
  let choice: Choice = choices.find((known) => known === saved) ?? 'auto';
  const button = h('button', { class: 'tool', type: 'button' });
  const apply = (): void => {
    if (choice === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
    button.textContent = signs[choice];
    button.setAttribute('aria-label', `Colours: ${labels[choice]}`);
    button.title = `Colours: ${labels[choice]}`;
    changed();
  };
  button.addEventListener('click', () => {
    choice = choices[(choices.indexOf(choice) + 1) % choices.length]!;
    memory.set('theme', choice);
    apply();
  });
  apply();
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed);
  return button;
}

/** A canvas as sharp as the screen, cleared, with one unit a CSS pixel; undefined while it is not seen. */
export function drawing(
  canvas: HTMLCanvasElement,
): { context: CanvasRenderingContext2D; width: number; height: number } | undefined {
  const { clientWidth: width, clientHeight: height } = canvas;
  const context = canvas.getContext('2d');
  if (context === null || width === 0 || height === 0) return undefined;
  const ratio = devicePixelRatio;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}
