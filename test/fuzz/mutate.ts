// Seeded damage to small files: the same 2,000-odd cases on every run, so that a failure can be repeated by its number.

/** Numbers in [0, 1) from a seed (mulberry32). */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

type Random = () => number;
const below = (next: Random, limit: number): number => Math.floor(next() * limit);
const pick = <Item>(next: Random, items: readonly Item[]): Item => items[below(next, items.length)]!;

const absurd64 = [
  0n,
  1n,
  7n,
  0xffn,
  0xffffn,
  0x7fffffffn,
  0xffffffffn,
  1n << 32n,
  1n << 40n,
  (1n << 53n) - 1n,
  1n << 53n,
  1n << 62n,
  (1n << 63n) - 1n,
  1n << 63n,
  (1n << 64n) - 1n,
];

/** Damages bytes within the first `reach` (where headers are), or anywhere. */
export function mutateBytes(bytes: Uint8Array, reach: number, next: Random): Uint8Array {
  let out = Uint8Array.from(bytes);
  const rounds = 1 + below(next, 3);
  for (let round = 0; round < rounds && out.length > 0; round++) {
    const at = below(next, next() < 0.8 ? Math.min(reach, out.length) : out.length);
    const view = new DataView(out.buffer);
    switch (below(next, 8)) {
      case 0:
        out[at]! ^= 1 << below(next, 8);
        break;
      case 1:
        out[at] = below(next, 256);
        break;
      case 2:
        out = out.slice(0, at);
        break;
      case 3:
        if (at + 8 <= out.length) view.setBigUint64(at, pick(next, absurd64), true);
        break;
      case 4:
        if (at + 4 <= out.length) view.setUint32(at, pick(next, [0, 1, 9, 0x7fffffff, 0xffffffff, 0x03000000]), true);
        break;
      case 5: {
        // A piece again, or gone: all that follows lies elsewhere.
        const length = below(next, 64);
        const piece = next() < 0.5 ? out.slice(at, at + length) : new Uint8Array(0);
        const rest = piece.length > 0 ? out.slice(at) : out.slice(at + length);
        out = Uint8Array.from([...out.slice(0, at), ...piece, ...rest]);
        break;
      }
      case 6:
        out.fill(pick(next, [0, 0x5b, 0x7b, 0x80, 0xff]), at, at + below(next, 200));
        break;
      default: {
        const more = new Uint8Array(out.length + below(next, 300));
        more.set(out);
        out = more;
      }
    }
  }
  return out;
}

const oddValues: readonly string[] = [
  'null',
  'true',
  '-1',
  '0',
  '0.5',
  '1e308',
  '1e999',
  '-0',
  '9007199254740993',
  '18446744073709551616',
  '""',
  '"x"',
  '"\\u0000"',
  '[]',
  '{}',
  '[[]]',
  '[1,2,3]',
  '{"a":{}}',
  'NaN',
  'Infinity',
  '"F32"',
  '"../../etc/passwd"',
  '[18446744073709551615]',
  '[-1]',
  '[1e300,1e300]',
  '[null,null]',
  `${'['.repeat(3000)}${']'.repeat(3000)}`,
  `${'{"a":'.repeat(200)}1${'}'.repeat(200)}`,
  `"${'x'.repeat(5000)}"`,
  `[${'1,'.repeat(2000)}1]`,
  '"__proto__"',
];

/** Damages JSON text: values swapped for others, keys doubled or renamed, brackets lost. */
export function mutateJson(text: string, next: Random): string {
  const values = [...text.matchAll(/:\s*("(?:[^"\\]|\\.)*"|-?[\d.eE+-]+|true|false|null|\[[^[\]{}]*\])/g)];
  const keys = [...text.matchAll(/"((?:[^"\\]|\\.)*)"\s*:/g)];
  const replace = (at: number, length: number, by: string): string => text.slice(0, at) + by + text.slice(at + length);
  switch (below(next, 7)) {
    case 0:
    case 1:
    case 2: {
      if (values.length === 0) return text;
      const match = pick(next, values);
      return replace(match.index + match[0].length - match[1]!.length, match[1]!.length, pick(next, oddValues));
    }
    case 3: {
      if (keys.length === 0) return text;
      const [a, b] = [pick(next, keys), pick(next, keys)];
      return replace(
        a.index,
        a[0].length,
        `"${pick(next, [b[1]!, '__proto__', 'constructor', '__metadata__', '', 'shape'])}":`,
      );
    }
    case 4: {
      if (keys.length === 0) return text;
      const match = pick(next, keys);
      return replace(match.index, 0, `${match[0]}${pick(next, oddValues)},`);
    }
    case 5: {
      const at = below(next, text.length);
      return (
        text.slice(0, at) +
        pick(next, ['', '{', '}', '[', ']', '"', ',', ':', '\\', '\u0000', '\ud800']) +
        text.slice(at + below(next, 3))
      );
    }
    default:
      return pick(next, oddValues);
  }
}

/** A safetensors file with another header text, its length field right. */
export function withHeader(bytes: Uint8Array, header: string): Uint8Array {
  const old = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const json = new TextEncoder().encode(header);
  const out = new Uint8Array(8 + json.length + bytes.length - 8 - old);
  new DataView(out.buffer).setBigUint64(0, BigInt(json.length), true);
  out.set(json, 8);
  out.set(bytes.subarray(8 + old), 8 + json.length);
  return out;
}

export function headerOf(bytes: Uint8Array): string {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  return new TextDecoder().decode(bytes.subarray(8, 8 + length));
}
