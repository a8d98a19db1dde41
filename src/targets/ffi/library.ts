// The one seam to native code: opens shared libraries and types their functions. koffi's own types stay in this file; callers see numbers,
// bigints, strings and byte views. Functions bind on first use, so that an older library lacks only what it lacks.
import koffi from 'koffi';
import { track } from '../../base/dispose.ts';
import { TargetError } from '../../base/errors.ts';

/** What a native pointer argument takes: an address, or memory of this process. */
export type Pointer = bigint | ArrayBufferView | null;

interface NativeTypes {
  i32: number;
  u32: number;
  i64: bigint | number;
  u64: bigint | number;
  f32: number;
  f64: number;
  ptr: Pointer;
  str: string | null;
  void: undefined;
}
export type NativeType = keyof NativeTypes;
/** `[result, ...arguments]` of a C function. */
export type Signature = readonly [result: NativeType, ...args: NativeType[]];
export type FunctionTable = Readonly<Record<string, Signature>>;

type Args<Types extends readonly NativeType[]> = { -readonly [I in keyof Types]: NativeTypes[Types[I]] };
type Rest<S extends Signature> = S extends readonly [NativeType, ...infer A extends readonly NativeType[]] ? A : never;
export type NativeFunction<S extends Signature> = (...args: Args<Rest<S>>) => NativeTypes[S[0]];
export type Functions<Table extends FunctionTable> = { readonly [Name in keyof Table]: NativeFunction<Table[Name]> };

const koffiNames: Record<NativeType, string> = {
  i32: 'int32_t',
  u32: 'uint32_t',
  i64: 'int64_t',
  u64: 'uint64_t',
  f32: 'float',
  f64: 'double',
  ptr: 'void *',
  str: 'str',
  void: 'void',
};

export interface LibraryRequest<Table extends FunctionTable> {
  /** What the library is, for messages: 'the NVIDIA driver'. */
  readonly what: string;
  /** File names or paths, tried in order; a bare name is looked up by the dynamic loader. */
  readonly names: readonly string[];
  readonly functions: Table;
  /** What the user can do when it is missing. */
  readonly remedy: string;
}

/** An open shared library. */
export interface Library<Table extends FunctionTable> extends Disposable {
  readonly path: string;
  readonly fn: Functions<Table>;
}

/** Opens the first library of `names` that loads; throws TargetError naming all that were tried. */
export function openLibrary<const Table extends FunctionTable>(request: LibraryRequest<Table>): Library<Table> {
  const failures: string[] = [];
  for (const name of request.names) {
    let handle: ReturnType<typeof koffi.load>;
    try {
      handle = koffi.load(name);
    } catch (error) {
      failures.push(error instanceof Error ? error.message : String(error));
      continue;
    }
    return bind(request, name, handle);
  }
  throw new TargetError(`${request.what} was not found`, {
    expected: `one of ${request.names.join(', ')}`,
    got: failures.at(-1) ?? 'no name to try',
    remedy: request.remedy,
  });
}

/** Loads a library for the sake of others that look it up by its bare name later; false when it does not load. */
export function preload(path: string): boolean {
  try {
    koffi.load(path);
    return true;
  } catch {
    return false;
  }
}

/** As openLibrary, but undefined when the library is not there. */
export function findLibrary<const Table extends FunctionTable>(
  request: LibraryRequest<Table>,
): Library<Table> | undefined {
  try {
    return openLibrary(request);
  } catch (error) {
    if (error instanceof TargetError) return undefined;
    throw error;
  }
}

function bind<Table extends FunctionTable>(
  request: LibraryRequest<Table>,
  path: string,
  handle: ReturnType<typeof koffi.load>,
): Library<Table> {
  const untrack = track(`library ${path.split('/').at(-1)}`);
  const fn = {} as Record<string, unknown>;
  for (const [name, [result, ...args]] of Object.entries<Signature>(request.functions)) {
    Object.defineProperty(fn, name, {
      configurable: true,
      enumerable: true,
      get() {
        let value: unknown;
        try {
          const types = args.map((arg) => koffiNames[arg]);
          value = handle.func(name, koffiNames[result], types);
        } catch (error) {
          throw new TargetError(`${request.what} has no function ${name}`, {
            where: path,
            remedy: 'Update it to a newer version.',
            cause: error,
          });
        }
        Object.defineProperty(fn, name, { value, enumerable: true });
        return value;
      },
    });
  }
  return { path, fn: fn as Functions<Table>, [Symbol.dispose]: untrack };
}

/** The address of memory of this process; it holds while the view is alive. */
export function addressOf(view: ArrayBufferView): bigint {
  return BigInt(koffi.address(view));
}

/** Native memory as an ArrayBuffer; the caller keeps it allocated for as long as the buffer is used. */
export function memoryAt(address: bigint, bytes: number): ArrayBuffer {
  return koffi.view(address, bytes);
}

/** The NUL-terminated text at a native address. */
export function textAt(address: bigint): string {
  return koffi.decode.string(address);
}

/** Zeroed memory whose address is a multiple of `alignment` (a power of two). */
export function alignedBytes(bytes: number, alignment: number): Uint8Array {
  const raw = new Uint8Array(new ArrayBuffer(bytes + alignment));
  const offset = Number((BigInt(alignment) - (addressOf(raw) % BigInt(alignment))) % BigInt(alignment));
  return raw.subarray(offset, offset + bytes);
}

/** Calls a native function on a thread beside the event loop; memory given to it must stay alive until it is done. */
export function callAsync<S extends Signature>(
  fn: NativeFunction<S>,
  ...args: Args<Rest<S>>
): Promise<NativeTypes[S[0]]> {
  return new Promise((resolve, reject) => {
    (fn as unknown as { async(...args: unknown[]): void }).async(
      ...args,
      (error: unknown, result: NativeTypes[S[0]]) => {
        if (error) reject(error instanceof Error ? error : new Error(String(error)));
        else resolve(result);
      },
    );
  });
}
