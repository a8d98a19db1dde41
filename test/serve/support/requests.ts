// Requests to an app without a socket, and the events of its streams.
import { createApp, Registry } from 'typert/serve';
import { FakeLLM, type FakeOptions } from './fake-llm.ts';

type AppOptions = Parameters<typeof createApp>[0];
type RegistryOptions = NonNullable<ConstructorParameters<typeof Registry>[1]>;

export interface Served {
  readonly llm: FakeLLM;
  readonly registry: Registry;
  get(path: string, init?: RequestInit): Promise<Response>;
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>;
}

/** An app over one fake model named 'fake'. */
export async function serveFake(
  options: FakeOptions & { readonly app?: Partial<AppOptions>; readonly registry?: RegistryOptions } = {},
): Promise<Served> {
  const llm = new FakeLLM(options);
  const registry = new Registry([{ name: 'fake', load: async () => llm }], options.registry);
  await registry.load();
  const app = createApp({ registry, ...options.app });
  const get = async (path: string, init: RequestInit = {}) => await app.fetch(new Request(`http://test${path}`, init));
  return {
    llm,
    registry,
    get,
    post: (path, body, init = {}) =>
      get(path, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body), ...init }),
  };
}

/** The data of server-sent events, parsed; '[DONE]' stays a text. */
export async function events(response: Response): Promise<Record<string, unknown>[]> {
  const text = await response.text();
  return text
    .split('\n')
    .filter((line) => line.startsWith('data: '))
    .map((line) => line.slice(6))
    .map((data) => (data === '[DONE]' ? { done: true } : (JSON.parse(data) as Record<string, unknown>)));
}

export async function until(condition: () => boolean, milliseconds = 5000): Promise<void> {
  const deadline = performance.now() + milliseconds;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error('it did not come to pass');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export const chat = { messages: [{ role: 'user', content: 'hello' }] };
