// What can go wrong with the hub, in words that say what to do.
import { HubError } from '../../base/errors.ts';

/** Whom to ask, and how. */
export interface HubAccess {
  readonly id: string;
  readonly revision: string;
  /** https://huggingface.co or a mirror, without a slash at its end. */
  readonly endpoint: string;
  readonly token: string | undefined;
  /** How often a connection that brought nothing is tried again. */
  readonly retries: number;
  readonly signal: AbortSignal | undefined;
}

/** The error for an HTTP status; `code` is the hub's X-Error-Code. */
export function statusError(
  { id, revision, endpoint, token }: HubAccess,
  status: number,
  code: string | undefined,
  url: string,
): HubError {
  const got = `status ${status}${code === undefined ? '' : ` (${code})`}`;
  const page = `${endpoint}/${id}`;
  if (code === 'GatedRepo' || status === 403) {
    return new HubError('the model is gated or forbidden', {
      where: id,
      expected: 'a token whose owner has accepted the terms of the model',
      got: `${got}, ${token === undefined ? 'no token' : 'a token without access'}`,
      remedy: `Accept the terms at ${page}, then set HF_TOKEN to a token of that account`,
    });
  }
  if (code === 'RevisionNotFound') {
    return new HubError('no such revision', {
      where: id,
      expected: `a branch, tag or commit named ${revision}`,
      got,
      remedy: `Choose one that is listed at ${page}/tree/main, with --revision`,
    });
  }
  if (code === 'EntryNotFound') {
    return new HubError('no such file', {
      where: id,
      expected: url,
      got,
      remedy: `See ${page}/tree/${revision} for the files there are`,
    });
  }
  if (status === 401 || status === 404) {
    return new HubError('no such model, or no access to it', {
      where: id,
      expected: `a model at ${page}, or a file or folder of that name here`,
      got: `${got}, ${token === undefined ? 'no token' : 'with a token'}`,
      remedy: 'Check the name; for a private or gated model set HF_TOKEN to a token that may read it',
    });
  }
  return new HubError('the hub refused', {
    where: id,
    expected: 'status 200',
    got: `${got} from ${url}`,
    remedy: 'Try again later',
  });
}

/** The error for a hub that cannot be reached, or whose connections break. */
export function networkError({ id, endpoint }: HubAccess, got: string, cause: unknown): HubError {
  return new HubError('the hub cannot be reached', {
    where: id,
    expected: `an answer of ${endpoint}`,
    got,
    remedy:
      'Check the network and HF_ENDPOINT, then run the command again: it continues where it stopped. Without a network, give a local folder, or a model that is in the cache',
    cause,
  });
}

/** The error for a model that is asked for while offline and is not in the cache. */
export function offlineError({ id, revision }: HubAccess, cacheDir: string): HubError {
  return new HubError('is not in the cache, and the hub may not be asked', {
    where: id,
    expected: `revision ${revision} under ${cacheDir}`,
    got: 'no snapshot of it, or not all its files',
    remedy: 'Unset HF_HUB_OFFLINE and run once with a network, or give a local folder',
  });
}
