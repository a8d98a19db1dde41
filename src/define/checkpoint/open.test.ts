import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { openResources } from '../../base/dispose.ts';
import { CheckpointError, ConfigError, type TypertError } from '../../base/errors.ts';
import { openCheckpoint } from './open.ts';
import { writeSafetensors } from './safetensors-write.ts';

const folder = mkdtempSync(join(tmpdir(), 'typert-open-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const cacheDir = join(folder, 'cache');
const gguf = fileURLToPath(new URL('../../../test/goldens/gguf/llama.q8_0.gguf', import.meta.url));

/** A folder with these texts as files, and weights when `weights` names their file. */
async function make(name: string, texts: Record<string, string>, weights?: string): Promise<string> {
  const place = join(folder, name);
  mkdirSync(place, { recursive: true });
  for (const [file, text] of Object.entries(texts)) writeFileSync(join(place, file), text);
  if (weights !== undefined) {
    await writeSafetensors(join(place, weights), [{ name: 'w', dtype: 'F32', shape: [2], bytes: 8 }], {}, () =>
      new Uint8Array(8).fill(weights.length),
    );
  }
  return place;
}
const config = '{"architectures":["LlamaForCausalLM"],"hidden_size":2}';
const open = (path: string): ReturnType<typeof openCheckpoint> => openCheckpoint(path, { cacheDir });

describe('openCheckpoint chooses by what is there', () => {
  test('a Hugging Face folder, with its text files', async () => {
    const place = await make(
      'hf',
      { 'config.json': config, 'tokenizer.json': '{}', 'chat_template.jinja': 'é', 'README.md': 'x' },
      'model.safetensors',
    );
    using checkpoint = await open(place);
    expect(checkpoint.format).toBe('huggingface');
    expect(checkpoint.config.hidden_size).toBe(2);
    expect([...checkpoint.assets]).toEqual([
      ['tokenizer.json', '{}'],
      ['chat_template.jinja', 'é'],
    ]);
    expect(checkpoint.tensors.read('w')).toHaveLength(8);
  });

  test('shards by their index', async () => {
    const index = '{"weight_map":{"w":"model-1.safetensors"}}';
    const place = await make(
      'shards',
      { 'config.json': config, 'model.safetensors.index.json': index },
      'model-1.safetensors',
    );
    using checkpoint = await open(place);
    expect([...checkpoint.tensors.tensors.keys()]).toEqual(['w']);
  });

  test('a TypeRT checkpoint, rank by rank', async () => {
    const place = await make(
      'typert',
      { 'config.json': '{"architecture":"LlamaForCausalLM","hidden_size":2}' },
      'rank0.safetensors',
    );
    using checkpoint = await open(place);
    expect(checkpoint.format).toBe('typert');
    await expect(openCheckpoint(place, { cacheDir, rank: 1 })).rejects.toThrow(/expected rank1.safetensors/);
  });

  test('a GGUF file, or a folder that holds just one', async () => {
    const place = await make('one', {});
    copyFileSync(gguf, join(place, 'a.gguf'));
    using file = await open(gguf);
    using inFolder = await open(place);
    expect([file.format, inFolder.format]).toEqual(['gguf', 'gguf']);
    copyFileSync(gguf, join(place, 'b.gguf'));
    await expect(open(place)).rejects.toThrow(/several GGUF files.*a.gguf, b.gguf.*Give the path/);
  });
});

describe('what is not a checkpoint is refused: class, place, expectation, remedy', () => {
  const cases: Record<string, [path: () => string | Promise<string>, errorClass: typeof TypertError, message: RegExp]> =
    {
      'missing folder': [
        () => join(folder, 'nowhere'),
        CheckpointError,
        /no such checkpoint; expected a checkpoint folder or a .gguf file; got nothing there/,
      ],
      'another kind of file': [
        async () => join(await make('other', { 'x.txt': 'x' }), 'x.txt'),
        CheckpointError,
        /not a checkpoint/,
      ],
      'no config.json': [
        () => make('bare', {}, 'model.safetensors'),
        ConfigError,
        /config.json is missing.*Fetch the whole model/,
      ],
      'config.json empty': [
        () => make('empty', { 'config.json': '' }, 'model.safetensors'),
        ConfigError,
        /config.json: is not valid JSON/,
      ],
      'config.json cut': [
        () => make('cut', { 'config.json': '{"a":' }, 'model.safetensors'),
        ConfigError,
        /config.json: is not valid JSON/,
      ],
      'config.json a list': [
        () => make('list', { 'config.json': '[1]' }, 'model.safetensors'),
        ConfigError,
        /not a JSON object; expected a JSON object; got an array of 1/,
      ],
      'config.json nested deeply': [
        () => make('deep', { 'config.json': '{"a":'.repeat(9000) }, 'model.safetensors'),
        ConfigError,
        /nested too deeply/,
      ],
      'no architecture': [
        () => make('noarch', { 'config.json': '{}' }, 'model.safetensors'),
        ConfigError,
        /does not say what the model is.*LlamaForCausalLM/,
      ],
      'architectures of another type': [
        () => make('arch', { 'config.json': '{"architectures":"LlamaForCausalLM"}' }, 'model.safetensors'),
        ConfigError,
        /expected architectures, a list with a class name.*got architectures: "LlamaForCausalLM"/,
      ],
      'no weights': [
        () => make('weightless', { 'config.json': config }),
        CheckpointError,
        /no weights that can be read; expected model.safetensors or/,
      ],
      'only a pickle': [
        () => make('pickle', { 'config.json': config, 'pytorch_model.bin': 'x' }),
        CheckpointError,
        /got pytorch_model.bin.*save_pretrained\(out, safe_serialization=True\)/,
      ],
      'a text file that is no text': [
        async () => {
          const place = await make('latin1', { 'config.json': config }, 'model.safetensors');
          writeFileSync(join(place, 'tokenizer.json'), new Uint8Array([0x7b, 0xff]));
          return place;
        },
        CheckpointError,
        /tokenizer.json: is not UTF-8/,
      ],
      'an engine': [
        () => make('engine', { 'config.json': '{"pretrained_config":{},"build_config":{}}' }),
        CheckpointError,
        /is an engine, not a checkpoint/,
      ],
      'damaged weights': [
        async () => {
          const place = await make('damaged', { 'config.json': config }, 'model.safetensors');
          const path = join(place, 'model.safetensors');
          writeFileSync(path, readFileSync(path).subarray(0, -3));
          return place;
        },
        CheckpointError,
        /model.safetensors: tensor "w": bad data_offsets/,
      ],
    };
  for (const [name, [path, errorClass, message]] of Object.entries(cases)) {
    test(name, async () => {
      const place = await path();
      const before = openResources();
      const error = await open(place).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(error).toBeInstanceOf(errorClass);
      const { message: text, expected, remedy } = error as TypertError;
      expect(text).toContain(place);
      expect(text).toMatch(message);
      expect(expected).toBeTruthy();
      expect(remedy).toBeTruthy();
      expect(openResources()).toEqual(before);
    });
  }
});

describe('contentHash', () => {
  const hash = async (path: string): Promise<string> => {
    using checkpoint = await open(path);
    return checkpoint.contentHash();
  };

  test('follows contents, not names or times; a memo spares reading again', async () => {
    const a = await make('hash-a', { 'config.json': config, 'tokenizer.json': '{}' }, 'model.safetensors');
    const b = await make('hash-b', { 'config.json': config, 'tokenizer.json': '{}' }, 'model.safetensors');
    const first = await hash(a);
    expect(first).toMatch(/^[0-9a-f]{64}$/);
    expect(await hash(b)).toBe(first);
    utimesSync(join(b, 'model.safetensors'), 1000, 1000);
    expect(await hash(b)).toBe(first);
    writeFileSync(join(b, 'tokenizer.json'), '{"a":1}');
    expect(await hash(b)).not.toBe(first);
    const weights = readFileSync(join(a, 'model.safetensors'));
    weights[weights.length - 1]! ^= 1;
    writeFileSync(join(a, 'model.safetensors'), weights);
    utimesSync(join(a, 'model.safetensors'), 2000, 2000);
    expect(await hash(a)).not.toBe(first);
    const memo = JSON.parse(readFileSync(join(cacheDir, 'hashes.json'), 'utf8')) as Record<string, unknown>;
    expect(Object.keys(memo)).toContain(join(a, 'model.safetensors'));
    expect(readdirSync(cacheDir)).toEqual(['hashes.json']);
  });

  test('a memo that is damaged, or cannot be written, does no harm', async () => {
    const place = await make('hash-c', { 'config.json': config }, 'model.safetensors');
    const first = await hash(place);
    for (const text of [
      '',
      'nonsense',
      '[]',
      '{"x":7}',
      `{"${join(place, 'model.safetensors')}":{"key":"0:0:0","sha256":"short"}}`,
    ]) {
      writeFileSync(join(cacheDir, 'hashes.json'), text);
      expect(await hash(place)).toBe(first);
    }
    using checkpoint = await openCheckpoint(place, { cacheDir: join(place, 'config.json') });
    expect(await checkpoint.contentHash()).toBe(first);
  });
});
