// The cache folder of huggingface_hub (Python), which TypeRT shares: models--org--name/{blobs, refs, snapshots}. A file's contents lie once
// under blobs, by its etag; a snapshot is a folder of links to them, one a commit; a ref is a file with the commit it stood for last.
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { getRepoFolderName } from '@huggingface/hub';
import { isFile, isFolder } from '../../base/files.ts';

const commitPattern = /^[0-9a-f]{40}$/;

export function isCommit(text: string): boolean {
  return commitPattern.test(text);
}

/** One model's part of the cache. */
export class RepoCache {
  readonly folder: string;

  constructor(cacheDir: string, id: string) {
    this.folder = join(cacheDir, getRepoFolderName({ name: id, type: 'model' }));
  }

  blob(etag: string): string {
    return join(this.folder, 'blobs', etag);
  }

  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit);
  }

  /** The commit that `revision` stood for when it was last asked of the hub, if its snapshot is here. */
  known(revision: string): string | undefined {
    const ref = join(this.folder, 'refs', revision);
    const commit = isCommit(revision) ? revision : isFile(ref) ? readFileSync(ref, 'utf8').trim() : undefined;
    return commit !== undefined && isCommit(commit) && isFolder(this.snapshot(commit)) ? commit : undefined;
  }

  remember(revision: string, commit: string): void {
    if (revision === commit) return;
    const ref = join(this.folder, 'refs', revision);
    mkdirSync(dirname(ref), { recursive: true });
    const partial = `${ref}.${process.pid}`;
    writeFileSync(partial, commit);
    renameSync(partial, ref);
  }

  /** Paths of the files in a snapshot, relative to it. */
  files(commit: string): string[] {
    const folder = this.snapshot(commit);
    return (readdirSync(folder, { recursive: true }) as string[])
      .filter((path) => isFile(join(folder, path)))
      .map((path) => path.replaceAll('\\', '/'));
  }

  /** Puts a blob into a snapshot: a relative link, or a copy where links are not allowed (Windows). */
  link(commit: string, path: string, etag: string): void {
    const place = join(this.snapshot(commit), path);
    const blob = this.blob(etag);
    if (existsSync(place) && realpathSync(place) === realpathSync(blob)) return;
    mkdirSync(dirname(place), { recursive: true });
    rmSync(place, { force: true });
    try {
      symlinkSync(relative(dirname(place), blob), place);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
      copyFileSync(blob, place);
    }
  }
}
