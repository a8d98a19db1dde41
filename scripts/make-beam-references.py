"""Writes test/goldens/beam/*.json: what Hugging Face transformers' generate(num_beams=...) makes of golden cases, in float32 on the CPU.

Widths x length penalties x early stopping modes, with end tokens that come up on the way. Usage: python scripts/make-beam-references.py
Needs: torch, transformers (made with 5.23).
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, __version__

GOLDENS = Path(__file__).parent.parent / "test" / "goldens"
MAX_TOKENS = 16

(GOLDENS / "beam").mkdir(exist_ok=True)
for name in ["llama", "gpt2", "qwen3"]:
    model = AutoModelForCausalLM.from_pretrained(GOLDENS / name, dtype=torch.float32, attn_implementation="eager").eval()
    golden = load_file(GOLDENS / name / "golden.safetensors")
    cases = []
    for prompt in [0, 1]:
        ids = golden[f"prompt{prompt}.input_ids"].long().reshape(1, -1)
        greedy = golden[f"prompt{prompt}.greedy"].long().tolist()
        beams = golden[f"prompt{prompt}.beam4"].long().tolist()
        # Tokens of good beams, so that hypotheses end at different lengths.
        ends = sorted({greedy[4], beams[-1][6]})
        for num_beams in [2, 4, 8]:
            for length_penalty in [0.0, 1.0, 2.0]:
                for early_stopping in [True, False, "never"]:
                    out = model.generate(
                        ids,
                        attention_mask=torch.ones_like(ids),
                        num_beams=num_beams,
                        num_return_sequences=num_beams,
                        length_penalty=length_penalty,
                        early_stopping=early_stopping,
                        max_new_tokens=MAX_TOKENS,
                        do_sample=False,
                        eos_token_id=ends,
                        pad_token_id=-1 % model.config.vocab_size,
                        return_dict_in_generate=True,
                        output_scores=True,
                    )
                    beams_out = []
                    for row in out.sequences[:, ids.shape[1] :].tolist():
                        end = next((i for i, token in enumerate(row) if token in ends), len(row) - 1)
                        beams_out.append(row[: end + 1])
                    cases.append(
                        {
                            "prompt": prompt,
                            "numBeams": num_beams,
                            "lengthPenalty": length_penalty,
                            "earlyStopping": {True: 1, False: 0, "never": 2}[early_stopping],
                            "ends": ends,
                            "beams": beams_out,
                            "scores": [round(score, 6) for score in out.sequences_scores.tolist()],
                        }
                    )
    lengths = {len(beam) for case in cases for beam in case["beams"]}
    print(name, len(cases), "cases, lengths", sorted(lengths))
    text = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    head = f'{{"transformers":"{__version__}","maxTokens":{MAX_TOKENS},"cases":[\n'
    (GOLDENS / "beam" / f"{name}.json").write_text(head + text + "\n]}\n")
