// Tokenizers made from GGUF metadata, run by @huggingface/tokenizers, against sentencepiece and Python's tokenizers (test/goldens/gguf).
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Tokenizer } from '@huggingface/tokenizers';
import { describe, expect, test } from 'vitest';
import { CheckpointError } from '../../base/errors.ts';
import type { GgufSource, GgufValue } from './gguf.ts';
import { ggufAssets, mergesFromScores } from './gguf-tokenizer.ts';
import { openCheckpoint } from './open.ts';

interface Vocabulary {
  readonly tokens: string[];
  readonly types: number[];
  readonly texts: string[];
}
interface Fixture {
  readonly sentencepiece: (Vocabulary & {
    prefix: boolean;
    scores: number[];
    bos: number;
    eos: number;
    unknown: number;
    ids: number[][];
  })[];
  readonly byteLevel: Vocabulary & { merges: string[]; cases: { pre: string; ids: number[][] }[] };
}
const fixture = JSON.parse(
  readFileSync(fileURLToPath(new URL('../../../test/goldens/gguf/tokenizers.json', import.meta.url)), 'utf8'),
) as Fixture;

/** A GGUF that holds only metadata. */
function holding(metadata: Record<string, GgufValue>): GgufSource {
  return {
    label: 'test.gguf',
    version: 3,
    metadata: new Map(Object.entries(metadata)),
    tensors: new Map(),
    read: () => new Uint8Array(0),
    [Symbol.dispose]: () => {},
  };
}

function load(metadata: Record<string, GgufValue>): { tokenizer: Tokenizer; assets: Map<string, string> } {
  const assets = ggufAssets(holding(metadata));
  const tokenizer = new Tokenizer(
    JSON.parse(assets.get('tokenizer.json')!),
    JSON.parse(assets.get('tokenizer_config.json')!),
  );
  return { tokenizer, assets };
}

describe('SentencePiece', () => {
  for (const { prefix, tokens, types, scores, texts, ids, bos, eos, unknown } of fixture.sentencepiece) {
    const metadata: Record<string, GgufValue> = {
      'tokenizer.ggml.model': 'llama',
      'tokenizer.ggml.tokens': tokens,
      'tokenizer.ggml.token_type': types,
      'tokenizer.ggml.scores': scores,
      'tokenizer.ggml.bos_token_id': bos,
      'tokenizer.ggml.eos_token_id': eos,
      'tokenizer.ggml.unknown_token_id': unknown,
      'tokenizer.ggml.add_space_prefix': prefix,
    };

    test(`cuts as sentencepiece does, ${prefix ? 'with' : 'without'} a leading space, bytes where a character is unknown`, () => {
      const { tokenizer } = load(metadata);
      texts.forEach((text, i) => {
        const got = tokenizer.encode(text, { add_special_tokens: false }).ids;
        expect(got, JSON.stringify(text)).toEqual(ids[i]);
        // A literal ▁ is a space to sentencepiece, too.
        if (got.length > 0) expect(tokenizer.decode(got)).toBe(text.replaceAll('▁', ' '));
      });
    });

    test(`puts the beginning-of-text token before a text, ${prefix ? 'with' : 'without'} a leading space`, () => {
      expect(load(metadata).tokenizer.encode('Hello').ids[0]).toBe(bos);
      const without = load({
        ...metadata,
        'tokenizer.ggml.add_bos_token': false,
        'tokenizer.ggml.add_eos_token': true,
      });
      const got = without.tokenizer.encode('Hello').ids;
      expect(got[0]).not.toBe(bos);
      expect(got.at(-1)).toBe(eos);
    });
  }

  test('merges never make control, byte or unused tokens', () => {
    const merges = mergesFromScores(
      ['<', 's', '>', '<s', '<s>', 'a', 'b', 'ab'],
      [1, 1, 1, 1, 3, 1, 1, 1],
      [0, 0, 0, -2, 0, 0, 0, -1],
    );
    expect(merges).toEqual([
      ['a', 'b'],
      ['<', 's'],
    ]);
  });
});

describe('byte-level BPE', () => {
  const { tokens, types, merges, texts, cases } = fixture.byteLevel;
  const end = tokens.indexOf('<|end|>');
  const metadata = (pre: string): Record<string, GgufValue> => ({
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': pre,
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.token_type': types,
    'tokenizer.ggml.merges': merges,
    'tokenizer.ggml.eos_token_id': end,
    'tokenizer.ggml.add_bos_token': false,
    'tokenizer.chat_template': '{{ messages }}',
  });

  for (const { pre, ids } of cases) {
    test(`${pre} cuts as the tokenizers of its models do`, () => {
      const { tokenizer } = load(metadata(pre));
      texts.forEach((text, i) => {
        const got = tokenizer.encode(text).ids;
        expect(got, JSON.stringify(text)).toEqual(ids[i]);
        if (got.length > 0)
          expect(tokenizer.decode(got)).toBe(pre === 'qwen2' || pre === 'gpt-neox' ? text.normalize('NFC') : text);
      });
    });
  }

  test('special tokens are matched in the text, skipped on demand, and end generation', () => {
    const { tokenizer, assets } = load(metadata('gpt-2'));
    const got = tokenizer.encode('a<|end|>a').ids;
    expect(got[1]).toBe(end);
    expect(tokenizer.decode(got, { skip_special_tokens: true })).toBe('aa');
    expect(JSON.parse(assets.get('generation_config.json')!)).toEqual({ eos_token_id: end });
    const config = JSON.parse(assets.get('tokenizer_config.json')!) as Record<string, unknown>;
    expect(config).toMatchObject({
      eos_token: '<|end|>',
      bos_token: null,
      chat_template: '{{ messages }}',
      add_bos_token: false,
    });
  });
});

describe('a tokenizer that cannot be right is refused', () => {
  const base = {
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': 'gpt-2',
    'tokenizer.ggml.tokens': ['a', 'b'],
    'tokenizer.ggml.merges': ['a b'],
  };
  const cases: Record<string, [Record<string, GgufValue>, RegExp]> = {
    'unknown model': [
      { ...base, 'tokenizer.ggml.model': 'rwkv' },
      /tokenizer.ggml.model: bad tokenizer; expected gpt2/,
    ],
    'unknown pre-tokenizer': [{ ...base, 'tokenizer.ggml.pre': 'qwen9' }, /nearest: qwen2.*got "qwen9"/],
    'no merges': [
      { 'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': 'gpt-2', 'tokenizer.ggml.tokens': ['a'] },
      /merges/,
    ],
    'types of another length': [{ ...base, 'tokenizer.ggml.token_type': [1] }, /array of 2 numbers; got 1 items/],
    'no scores': [{ 'tokenizer.ggml.model': 'llama', 'tokenizer.ggml.tokens': ['a'] }, /1 scores/],
  };
  for (const [name, [metadata, message]] of Object.entries(cases)) {
    test(name, () => {
      expect(() => ggufAssets(holding(metadata))).toThrow(message);
      expect(() => ggufAssets(holding(metadata))).toThrow(CheckpointError);
    });
  }
});

const smollm = fileURLToPath(new URL('../../../.models/SmolLM2-135M-Instruct.Q4_1.gguf', import.meta.url));
// Needs .models/SmolLM2-135M-Instruct.Q4_1.gguf (98 MB), which is not part of the repository.
test.skipIf(!existsSync(smollm))('SmolLM2-135M-Instruct (skipped when .models/ does not hold its GGUF)', async () => {
  using checkpoint = await openCheckpoint(smollm);
  expect(checkpoint.config).toMatchObject({
    architectures: ['LlamaForCausalLM'],
    num_hidden_layers: 30,
    head_dim: 64,
    rms_norm_eps: 1e-5,
    rope_parameters: { rope_theta: 100000 },
    tie_word_embeddings: true,
  });
  expect(checkpoint.tensors.tensors.get('model.layers.0.self_attn.q_proj.weight')).toMatchObject({
    dtype: 'q4_1',
    shape: [576, 576],
  });
  const asset = (name: string): Record<string, unknown> =>
    JSON.parse(checkpoint.assets.get(name)!) as Record<string, unknown>;
  const tokenizer = new Tokenizer(asset('tokenizer.json'), asset('tokenizer_config.json'));
  // From Python's tokenizers with the model's own tokenizer.json.
  expect(tokenizer.encode('Hello world').ids).toEqual([19556, 905]);
  expect(tokenizer.encode("x'll X'LL 3.14").ids).toEqual([104, 3060, 2273, 23, 16421, 216, 35, 30, 33, 36]);
  expect(asset('generation_config.json')).toEqual({ bos_token_id: 1, eos_token_id: [2, 0], pad_token_id: 2 });
  expect(asset('tokenizer_config.json').chat_template).toContain('<|im_start|>');
});
