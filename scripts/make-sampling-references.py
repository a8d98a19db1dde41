"""Writes test/goldens/sampling/processors.json: what Hugging Face transformers' logits processors make of rows of logits.

Each case is one row with a history, the parameters in our words, and the row after the processors (or the probabilities after the warpers).
Usage: python scripts/make-sampling-references.py    Needs: torch, transformers (made with 5.23).
"""

import json
import math
from pathlib import Path

import torch
from transformers import __version__
from transformers.generation import logits_process as hf

OUT = Path(__file__).parent.parent / "test" / "goldens" / "sampling"
OUT.mkdir(parents=True, exist_ok=True)
VOCAB = 48
generator = torch.Generator().manual_seed(20)


def processors(params, prompt_length):
    """In the order of transformers' _get_logits_processor."""
    made = []
    if "embeddingBias" in params:
        made.append(hf.SequenceBiasLogitsProcessor([[[int(token)], value] for token, value in params["embeddingBias"]]))
    if "repetitionPenalty" in params:
        made.append(hf.RepetitionPenaltyLogitsProcessor(params["repetitionPenalty"]))
    if "noRepeatNgramSize" in params:
        made.append(hf.NoRepeatNGramLogitsProcessor(params["noRepeatNgramSize"]))
    if "badWords" in params:
        made.append(hf.NoBadWordsLogitsProcessor(params["badWords"]))
    if "minTokens" in params:
        made.append(hf.MinNewTokensLengthLogitsProcessor(prompt_length, params["minTokens"], params["endId"]))
    return made


def warpers(params):
    made = []
    if "temperature" in params:
        made.append(hf.TemperatureLogitsWarper(params["temperature"]))
    if "topK" in params:
        made.append(hf.TopKLogitsWarper(params["topK"]))
    if "topP" in params:
        made.append(hf.TopPLogitsWarper(params["topP"]))
    if "minP" in params:
        made.append(hf.MinPLogitsWarper(params["minP"]))
    return made


def number(value):
    return None if math.isinf(value) else value


choices = [
    {"embeddingBias": [[3, 2.5], [7, -4.0]]},
    {"repetitionPenalty": 1.3},
    {"repetitionPenalty": 0.7},
    {"noRepeatNgramSize": 1},
    {"noRepeatNgramSize": 2},
    {"noRepeatNgramSize": 3},
    {"badWords": [[5], [9], [1, 2], [2, 1, 3]]},
    {"minTokens": 5, "endId": 4},
    {"minTokens": 3, "endId": 4},
    {"embeddingBias": [[1, 1.5]], "repetitionPenalty": 1.2, "noRepeatNgramSize": 2, "badWords": [[8]], "minTokens": 9, "endId": 4},
    {"temperature": 0.7},
    {"temperature": 1.9},
    {"topK": 5},
    {"topK": 1000},
    {"topP": 0.6},
    {"topP": 0.95},
    {"minP": 0.1},
    {"minP": 0.5},
    {"temperature": 0.8, "topK": 12, "topP": 0.9, "minP": 0.05},
    {"temperature": 1.4, "topK": 3, "topP": 0.99},
    {"repetitionPenalty": 1.15, "noRepeatNgramSize": 3, "temperature": 0.9, "topK": 20, "topP": 0.85, "minP": 0.02},
]
cases = []
for params in choices:
    for repeat in range(4):
        prompt_length = 6
        length = prompt_length + 1 + 2 * repeat
        # Few different tokens, so that n-grams repeat.
        history = torch.randint(0, 4 + 3 * repeat, (1, length), generator=generator)
        logits = (torch.randn((1, VOCAB), generator=generator) * 2.5).float()
        row = logits.clone()
        for process in processors(params, prompt_length):
            row = process(history, row)
        case = {
            "params": params,
            "promptLength": prompt_length,
            "tokens": history[0].tolist(),
            "logits": logits[0].tolist(),
            "processed": [number(value) for value in row[0].tolist()],
        }
        chain = warpers(params)
        if chain:
            for warp in chain:
                row = warp(history, row)
            case["probabilities"] = torch.softmax(row.double(), dim=-1)[0].tolist()
        cases.append(case)

text = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
(OUT / "processors.json").write_text(f'{{"transformers":"{__version__}","cases":[\n{text}\n]}}\n')
print(len(cases), "cases")
