// The only reader of process.env. Every variable TypeRT understands is here, checked once at start.
import { homedir } from 'node:os';
import { join } from 'node:path';
import { UsageError } from './errors.ts';

export interface Env {
  /** TYPERT_DEBUG: 0 quiet, 1 lifecycle, 2 time per kernel, 3 passes and tactics, 4 graph text and stubs, 5 machine code. */
  readonly debug: 0 | 1 | 2 | 3 | 4 | 5;
  /** TYPERT_CACHE: where built engines and compiled kernels are kept. */
  readonly cacheDir: string;
  /** TYPERT_TARGET: the default of `target`. */
  readonly target: string | undefined;
  /** HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, HF_HUB_CACHE or HF_HOME: as in huggingface_hub. */
  readonly hub: {
    readonly endpoint: string;
    readonly token: string | undefined;
    readonly offline: boolean;
    readonly cacheDir: string;
  };
  /** PATH: where the system's compilers are looked for. */
  readonly path: string;
  /** OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT, and OTEL_EXPORTER_OTLP_HEADERS: as in OpenTelemetry's SDKs. */
  readonly otlp: { readonly endpoint: string | undefined; readonly headers: Readonly<Record<string, string>> };
  /** NO_COLOR (https://no-color.org). */
  readonly color: boolean;
}

function flag(name: string, value: string | undefined): boolean {
  if (value === undefined || value === '' || value === '0' || /^(false|no|off)$/i.test(value)) return false;
  if (value === '1' || /^(true|yes|on)$/i.test(value)) return true;
  throw new UsageError('not a switch', { where: name, expected: '1 or 0', got: value });
}

/** `key=value,key2=value2`, percent-encoded. */
function pairs(name: string, value: string | undefined): Record<string, string> {
  const all = (value ?? '').split(',').filter((pair) => pair.trim() !== '');
  return Object.fromEntries(
    all.map((pair) => {
      const at = pair.indexOf('=');
      if (at <= 0) throw new UsageError('not a list of headers', { where: name, expected: 'key=value,key2=value2' });
      return [pair.slice(0, at).trim(), decodeURIComponent(pair.slice(at + 1).trim())];
    }),
  );
}

/** Reads the environment; throws UsageError on a value that makes no sense. */
export function readEnv(vars: Readonly<Record<string, string | undefined>> = process.env): Env {
  const debugText = vars.TYPERT_DEBUG ?? '0';
  if (!/^[0-5]$/.test(debugText))
    throw new UsageError('not a debug level', {
      where: 'TYPERT_DEBUG',
      expected: 'a number from 0 to 5',
      got: debugText,
    });
  const home = homedir();
  const xdgCache = vars.XDG_CACHE_HOME || join(home, '.cache');
  const hfHome = vars.HF_HOME || join(xdgCache, 'huggingface');
  const endpoint = (vars.HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, '');
  if (!/^https?:\/\//.test(endpoint))
    throw new UsageError('not a URL', { where: 'HF_ENDPOINT', expected: 'http:// or https://', got: endpoint });
  return {
    debug: Number(debugText) as Env['debug'],
    cacheDir: vars.TYPERT_CACHE || join(xdgCache, 'typert'),
    target: vars.TYPERT_TARGET || undefined,
    hub: {
      endpoint,
      token: vars.HF_TOKEN || vars.HUGGING_FACE_HUB_TOKEN || undefined,
      offline: flag('HF_HUB_OFFLINE', vars.HF_HUB_OFFLINE),
      cacheDir: vars.HF_HUB_CACHE || join(hfHome, 'hub'),
    },
    path: vars.PATH || '',
    otlp: {
      endpoint:
        vars.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT ||
        (vars.OTEL_EXPORTER_OTLP_ENDPOINT
          ? `${vars.OTEL_EXPORTER_OTLP_ENDPOINT.replace(/\/+$/, '')}/v1/traces`
          : undefined),
      headers: pairs('OTEL_EXPORTER_OTLP_HEADERS', vars.OTEL_EXPORTER_OTLP_HEADERS),
    },
    color: vars.NO_COLOR === undefined || vars.NO_COLOR === '',
  };
}
