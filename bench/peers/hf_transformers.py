# Hugging Face transformers on random weights of a shape (a config.json): decode at batch 1 and one prompt, as JSON. With `--save DIR` it writes the weights as a checkpoint instead.
import json
import sys
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def model_of(path):
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(path)
    with torch.device('cuda'):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


@torch.inference_mode()
def best(run, rounds=3):
    times = []
    for _ in range(rounds + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main():
    model = model_of(sys.argv[1])
    if len(sys.argv) > 3 and sys.argv[2] == '--save':
        model.save_pretrained(sys.argv[3], safe_serialization=True, max_shard_size='5GB')
        return
    vocab = model.config.vocab_size
    short, long = (torch.randint(vocab, (1, n), device='cuda') for n in (128, 2048))
    new = 64
    make = dict(do_sample=False, min_new_tokens=new, max_new_tokens=new, pad_token_id=0)
    # The prompt's part is taken off: what is left are the steps of one token.
    decode = best(lambda: model.generate(short, **make)) - best(lambda: model(short))
    print(json.dumps({'decode_tok_s': (new - 1) / decode, 'prefill_2048_ms': 1e3 * best(lambda: model(long))}))


main()
