#!/usr/bin/env python3
"""Makes test/goldens/gguf/tokenizers.json: small vocabularies as GGUF metadata holds them, with what Google's `sentencepiece` and Hugging Face's
`tokenizers` (Python) make of some texts. Both are the implementations whose behaviour a GGUF's tokenizer must have.

usage: make-tokenizer-fixtures.py OUT.json
needs: pip install sentencepiece tokenizers
"""

import io
import json
import random
import sys

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = [
    "Hello world",
    " leading and trailing ",
    "two  spaces   and\ttabs\n\nand lines\r\n  end",
    "I'm sure WE'LL see what they'Ve got; don't you? it's HERE'S",
    "1 12 123 1234 12345 3.14159 2024-05-17",
    "naïve café Ärger straße ŒUVRE e\u0301",
    "日本語のテキスト 中文字符 한국어",
    "emoji 😀👍🏽🏳️‍🌈 done",
    "function fooBarBaz(x) { return x*x+1; } // CamelCase HTTPServer",
    "под Москвой ΕΛΛΗΝΙΚΑ ελληνικά",
    "!!! ??? ... ---=== $5.00 <tag> [x] (y) `code`",
    "",
    "a",
    " ",
    "\u2581literal",
]
CORPUS = TEXTS * 3 + [
    "The quick brown fox jumps over the lazy dog. " * 3,
    "Once upon a time there was a little girl who lived in a house with her mother and her father. " * 3,
    "She said that she'd go, and they'll come when it's time; we've 1000 and 2000 and 123456 of them.",
    "return function const let var import export class extends this that",
]


def sentencepiece_case(prefix):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, model_type="bpe", vocab_size=620, byte_fallback=True, character_coverage=0.98,
        add_dummy_prefix=prefix, remove_extra_whitespaces=False, normalization_rule_name="identity", allow_whitespace_only_pieces=True,
        split_digits=True, pad_id=-1, user_defined_symbols=["<user>"],
    )
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    kinds = []
    for i in range(sp.get_piece_size()):
        kind = 2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 4 if sp.id_to_piece(i) == "<user>" else 1
        kinds.append(kind)
    texts = [text for text in TEXTS if "\r" not in text]
    return {
        "prefix": prefix,
        "tokens": [sp.id_to_piece(i) for i in range(sp.get_piece_size())],
        "scores": [sp.get_score(i) for i in range(sp.get_piece_size())],
        "types": kinds,
        "bos": sp.bos_id(), "eos": sp.eos_id(), "unknown": sp.unk_id(),
        "texts": texts,
        "ids": [sp.encode(text) for text in texts],
    }


# As the models' own tokenizer.json files spell them.
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
TEKKEN = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT4O = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


PRE = {
    "gpt-2": (byte_level(True), False, False),
    "gpt-neox": (byte_level(True), True, False),
    "smollm": (pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(True)]), False, False),
    "llama-bpe": (pre_tokenizers.Sequence([split(LLAMA3), byte_level(False)]), False, True),
    "qwen2": (pre_tokenizers.Sequence([split(QWEN2), byte_level(False)]), True, False),
    "dbrx": (pre_tokenizers.Sequence([split(LLAMA3), byte_level(False)]), False, False),
    "tekken": (pre_tokenizers.Sequence([split(TEKKEN), byte_level(False)]), False, True),
    "gpt-4o": (pre_tokenizers.Sequence([split(GPT4O), byte_level(False)]), False, False),
}


def byte_level_case():
    trained = Tokenizer(models.BPE())
    # Trained without a cut, so that merges reach across words and a wrong cut shows.
    trained.pre_tokenizer = pre_tokenizers.Sequence([split(r"\s*\S+\s\S+|\s+"), byte_level(False)])
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    trained.train_from_iterator(CORPUS, trainer)
    model = json.loads(trained.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    rng = random.Random(3)
    letters = "aA zZ'sLl09 .,\n\té日😀-_(){}"
    texts = TEXTS + ["".join(rng.choice(letters) for _ in range(40)) for _ in range(40)]
    cases = []
    for name, (pre, composed, ignore) in PRE.items():
        tokenizer = Tokenizer(models.BPE(model["vocab"], [tuple(m) for m in model["merges"]], ignore_merges=ignore))
        tokenizer.pre_tokenizer = pre
        if composed:
            tokenizer.normalizer = normalizers.NFC()
        cases.append({"pre": name, "ids": [tokenizer.encode(text).ids for text in texts]})
    return {
        "tokens": tokens,
        "types": [3 if token == "<|end|>" else 1 for token in tokens],
        "merges": [" ".join(m) for m in model["merges"]],
        "texts": texts,
        "cases": cases,
    }


def main():
    data = {"sentencepiece": [sentencepiece_case(True), sentencepiece_case(False)], "byteLevel": byte_level_case()}
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        json.dump(data, out, ensure_ascii=False, separators=(",", ":"))


main()
