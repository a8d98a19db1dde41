// What a model writes, as elements: paragraphs as they are, fenced code set apart. Nothing that it writes becomes markup.
import { h } from '../dom.ts';

/** The parts of a text: prose, and code between fences (the last one may still be open). */
function partsOf(text: string): readonly { readonly code: boolean; readonly text: string }[] {
  return text.split(/^```.*\n?/m).map((part, i) => ({ code: i % 2 === 1, text: part }));
}

/** Puts a text into an element; parts that did not change keep their elements, so that a selection stays. */
export function showText(element: HTMLElement, text: string): void {
  const parts = partsOf(text).filter(({ text: part }) => part.trim() !== '');
  parts.forEach((part, i) => {
    const tag = part.code ? 'PRE' : 'P';
    const content = part.code ? part.text.replace(/\n$/, '') : part.text.trim();
    const there = element.children[i];
    if (there?.tagName === tag) {
      if (there.textContent !== content) there.textContent = content;
    } else {
      const made = part.code ? h('pre', { tabindex: 0 }, content) : h('p', {}, content);
      if (there === undefined) element.append(made);
      else there.replaceWith(made);
    }
  });
  while (element.childElementCount > parts.length) element.lastElementChild!.remove();
}
