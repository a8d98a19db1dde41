// The few lines that stand in for a framework: elements from a tag, properties and children; the page updates them where they stand.

type Child = Node | string | undefined | false;
type Props = Readonly<Record<string, string | number | boolean | ((event: never) => void) | undefined>>;

function apply(element: Element, props: Props): void {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name, value as EventListener);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
}

/** An element: attributes by name, listeners by event name. */
export function h<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  props: Props = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  apply(element, props);
  element.append(...children.filter((child) => child !== undefined && child !== false));
  return element;
}

/** An element of SVG. */
export function s<Tag extends keyof SVGElementTagNameMap>(
  tag: Tag,
  props: Props = {},
  ...children: readonly Child[]
): SVGElementTagNameMap[Tag] {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  apply(element, props);
  element.append(...children.filter((child) => child !== undefined && child !== false));
  return element;
}

/** Puts text into an element, only when it differs: nothing is laid out anew for the same words. */
export function say(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

export function byId(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}

/** Makes a list show `items`, keeping the elements of those that stay. */
export class Keyed<Item, Row extends { readonly element: Element }> {
  readonly #list: Element;
  readonly #make: (item: Item) => Row;
  readonly #rows = new Map<string, Row>();

  constructor(list: Element, make: (item: Item) => Row) {
    this.#list = list;
    this.#make = make;
  }

  show(items: readonly Item[], keyOf: (item: Item) => string, update: (row: Row, item: Item) => void): void {
    const wanted = new Set(items.map(keyOf));
    for (const [key, row] of this.#rows) {
      if (wanted.has(key)) continue;
      row.element.remove();
      this.#rows.delete(key);
    }
    let before: Element | null = null;
    for (const item of items.toReversed()) {
      const key = keyOf(item);
      let row = this.#rows.get(key);
      if (row === undefined) this.#rows.set(key, (row = this.#make(item)));
      if (row.element.parentNode !== this.#list || row.element.nextElementSibling !== before)
        this.#list.insertBefore(row.element, before);
      before = row.element;
      update(row, item);
    }
  }
}

/** What is remembered of the reader's choices in this browser; nothing where storage is shut off. */
export const memory = {
  get(name: string): string | undefined {
    try {
      return localStorage.getItem(`typert.${name}`) ?? sessionStorage.getItem(`typert.${name}`) ?? undefined;
    } catch {
      return undefined;
    }
  },
  set(name: string, value: string, keep: 'always' | 'session' = 'always'): void {
    try {
      const [kept, other] = keep === 'always' ? [localStorage, sessionStorage] : [sessionStorage, localStorage];
      kept.setItem(`typert.${name}`, value);
      other.removeItem(`typert.${name}`);
    } catch {
      // Then it is not remembered.
    }
  },
};
