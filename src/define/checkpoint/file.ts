// A file read by position: whoever holds it holds a descriptor and no contents.
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { track } from '../../base/dispose.ts';
import { CheckpointError } from '../../base/errors.ts';

/** One read call moves at most this much: Linux stops at 2 GiB, and Node refuses more. */
const maxRead = 1 << 30;

/** What to advise for the error codes that the file system gives. */
export function fileError(what: string, path: string, error: unknown): CheckpointError {
  const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
  const facts: Record<string, { got: string; remedy: string }> = {
    ENOENT: { got: 'no such file', remedy: 'Check the path, or fetch the checkpoint again' },
    EACCES: { got: 'no permission', remedy: 'Give this user the right to read and write it' },
    EPERM: { got: 'no permission', remedy: 'Give this user the right to read and write it' },
    EISDIR: { got: 'a folder', remedy: 'Give the path of a file' },
    ENOSPC: { got: 'a full disk', remedy: 'Free space on that disk, or choose an output folder on another one' },
    EDQUOT: { got: 'a disk quota that is used up', remedy: 'Free space, or choose an output folder elsewhere' },
    EROFS: { got: 'a read-only file system', remedy: 'Choose an output folder on another disk' },
    EFBIG: { got: 'a file larger than the file system allows', remedy: 'Choose an output folder on another disk' },
    EIO: { got: 'an input/output error of the disk', remedy: 'Check the disk, or copy the file elsewhere' },
    EMFILE: { got: 'too many open files', remedy: 'Raise the limit (ulimit -n)' },
  };
  const known = facts[code];
  return new CheckpointError(what, {
    where: path,
    expected: 'a readable and writable regular file',
    got: known?.got ?? code,
    remedy: known?.remedy ?? 'Check the file and the disk it is on',
    cause: error,
  });
}

export class PositionalFile implements Disposable {
  readonly path: string;
  /** Bytes, when it was opened. */
  readonly size: number;
  readonly #fd: number;
  readonly #release: () => void;
  #open = true;

  /** Opens for reading; throws CheckpointError when that cannot be done or it is not a regular file. */
  constructor(path: string) {
    this.path = path;
    try {
      this.#fd = openSync(path, 'r');
    } catch (error) {
      throw fileError('cannot be opened', path, error);
    }
    const stat = fstatSync(this.#fd);
    if (!stat.isFile()) {
      closeSync(this.#fd);
      throw new CheckpointError('cannot be read', {
        where: path,
        expected: 'a regular file',
        got: stat.isDirectory() ? 'a folder' : 'a device or pipe',
        remedy: 'Give the path of a file',
      });
    }
    this.size = stat.size;
    this.#release = track('checkpoint file');
  }

  /** Reads into `target` from byte `offset`; throws CheckpointError when the file ends before. */
  readInto(target: Uint8Array, offset: number): void {
    if (!this.#open) {
      throw new CheckpointError('was read after it was closed', {
        where: this.path,
        expected: 'an open checkpoint',
        remedy: 'Read tensors before the checkpoint is disposed',
      });
    }
    let done = 0;
    while (done < target.length) {
      let got: number;
      try {
        got = readSync(this.#fd, target, done, Math.min(maxRead, target.length - done), offset + done);
      } catch (error) {
        throw fileError('cannot be read', this.path, error);
      }
      if (got === 0) {
        throw new CheckpointError('ends too early', {
          where: this.path,
          expected: `${target.length} bytes at ${offset}`,
          got: `a file of ${offset + done} bytes`,
          remedy: 'The file is incomplete: fetch or copy it again',
        });
      }
      done += got;
    }
  }

  /** Bytes [`offset`, `offset + length`). */
  read(offset: number, length: number): Uint8Array {
    const target = new Uint8Array(length);
    this.readInto(target, offset);
    return target;
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#fd);
    this.#release();
  }
}
