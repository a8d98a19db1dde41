// Asks the reader for the server's key. It stays in this tab, unless the reader wants it kept.
import { h, memory } from './dom.ts';

/** Resolves when a key was given. `wrong`: the one that was tried is not. */
export function askForKey(wrong: boolean): Promise<string> {
  return new Promise((resolve) => {
    const input = h('input', { type: 'password', id: 'key', autocomplete: 'current-password', required: true });
    const keep = h('input', { type: 'checkbox', id: 'keep' });
    const form = h(
      'form',
      { method: 'dialog' },
      h('h2', { id: 'key-title' }, 'This server wants a key'),
      h(
        'p',
        {},
        wrong
          ? 'The key that was given is not one of its keys. They are those of --api-key or --api-key-file.'
          : 'It was started with --api-key or --api-key-file. The key is sent to this server only.',
      ),
      h('label', { for: 'key' }, 'Key'),
      input,
      h('label', { class: 'keep' }, keep, ' Keep it in this browser'),
      h('button', { class: 'send' }, 'Go on'),
    );
    const dialog = h('dialog', { 'aria-labelledby': 'key-title' }, form);
    // There is nothing to see without a key.
    dialog.addEventListener('cancel', (event) => event.preventDefault());
    form.addEventListener('submit', () => {
      const key = input.value.trim();
      memory.set('key', key, keep.checked ? 'always' : 'session');
      dialog.remove();
      resolve(key);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
