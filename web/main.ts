// The page: which model, which view, which colours; the views do the rest.
import { ApiError, getJson, type ModelInfo, onKeyWanted, type ServerInfo } from './api.ts';
import { ChatView } from './chat/chat.ts';
import { byId, h, memory, say } from './dom.ts';
import { EngineView } from './engine/engine.ts';
import { askForKey } from './key.ts';
import { LiveView } from './live/live.ts';
import { themeButton } from './theme.ts';

const views = ['live', 'chat', 'engine'] as const;
type View = (typeof views)[number];
const titles: Readonly<Record<View, string>> = { live: 'Live', chat: 'Chat', engine: 'Engine' };

/** Chat stands beside the other views where there is room; then it is none of its own. */
const wide = matchMedia('(min-width: 1180px)');

onKeyWanted(askForKey);
const notice = byId('notice');
const dot = h('i', { class: 'dot', 'data-state': 'wait' });
const facts = h('span', { class: 'facts' });

const live = new LiveView(byId('live'), {
  notice: (text, kind) => {
    say(notice, text ?? '');
    notice.dataset.kind = kind;
  },
  state: (state, running) => {
    dot.dataset.state = state === 'ready' ? (running > 0 ? 'busy' : 'ready') : state;
    document.body.dataset.stale = String(state === 'gone');
  },
});
const engine = new EngineView(byId('engine'));
const chat = new ChatView(byId('chat'));

const tabs = new Map<View, HTMLAnchorElement>();
for (const view of views) {
  const tab = h('a', { href: `#${view}` }, titles[view]);
  tabs.set(view, tab);
  byId('tabs').append(tab);
}
byId('tools').append(themeButton());

function show(): void {
  const asked = location.hash.slice(1);
  const found = views.find((view) => view === asked) ?? 'live';
  const view = found === 'chat' && wide.matches ? 'live' : found;
  document.body.dataset.view = view;
  byId('live').hidden = view !== 'live';
  byId('engine').hidden = view !== 'engine';
  byId('main').hidden = view === 'chat';
  byId('chat').hidden = !wide.matches && view !== 'chat';
  for (const [name, tab] of tabs) {
    if (name === view) tab.setAttribute('aria-current', 'page');
    else tab.removeAttribute('aria-current');
  }
  if (view === 'engine') engine.open();
}
addEventListener('hashchange', show);
wide.addEventListener('change', show);
show();

function choose(model: ModelInfo): void {
  memory.set('model', model.name, 'session');
  chat.model = model.name;
  engine.model = model.name;
  const { architecture, build_config: build } = model;
  say(
    facts,
    [architecture?.replace(/(For(CausalLM)|LMHeadModel)$/, ''), build?.target, build?.dtype]
      .filter(Boolean)
      .join(' · '),
  );
  document.title = `${model.name} – TypeRT`;
  live.watch(model);
}

async function start(): Promise<void> {
  for (;;) {
    try {
      const { models } = await getJson<ServerInfo>('/server_info');
      const ready = models.find(({ name }) => name === memory.get('model')) ?? models[0];
      if (ready === undefined) throw new ApiError('The server has no model.', 0);
      if (ready.limits !== undefined) return begin(models, ready);
      say(
        notice,
        ready.state === 'failed'
          ? `${ready.name} could not be opened; it is being tried again.`
          : `${ready.name} is being loaded.`,
      );
      notice.dataset.kind = ready.state === 'failed' ? 'error' : 'wait';
    } catch (error) {
      say(notice, error instanceof Error ? error.message : String(error));
      notice.dataset.kind = 'error';
    }
    await new Promise((resolve) => setTimeout(resolve, 1500));
  }
}

function begin(models: readonly ModelInfo[], first: ModelInfo): void {
  const place = byId('model');
  if (models.length === 1) place.append(dot, h('span', { class: 'name' }, first.name), facts);
  else {
    const select = h('select', { 'aria-label': 'Model' });
    for (const { name } of models) select.append(h('option', { value: name, selected: name === first.name }, name));
    select.addEventListener('change', () => {
      const chosen = models.find(({ name }) => name === select.value);
      if (chosen !== undefined) choose(chosen);
    });
    place.append(dot, select, facts);
  }
  choose(first);
}

void start();
