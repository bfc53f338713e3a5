#!/usr/bin/env python3
"""Figure (f): tokens a second of Trainyard and of PyTorch on this CPU, same model, batch and threads, in one run.

Makes a virtual environment in a temporary folder and installs PyTorch and transformers from PyPI into it (about 5 GB),
or uses the interpreter given by --python. Both sides train the llama-25m preset in fp32 with AdamW and clipping on
random tokens; PyTorch runs its own eager mode and, where it works, torch.compile.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

TORCH = r"""
import json, os, sys, time
import torch
shape, batch, length, threads, steps, compile_it = json.loads(sys.argv[1])
torch.set_num_threads(threads)
torch.manual_seed(0)
from transformers import LlamaConfig, LlamaForCausalLM
model = LlamaForCausalLM(LlamaConfig(**shape, attn_implementation="sdpa"))
model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
run = torch.compile(model) if compile_it else model
seconds = []
for step in range(steps):
    ids = torch.randint(0, shape["vocab_size"], (batch, length + 1))
    begin = time.perf_counter()
    logits = run(input_ids=ids[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.size(-1)), ids[:, 1:].reshape(-1))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    seconds.append(time.perf_counter() - begin)
seconds = sorted(seconds[3:])
print(json.dumps({"tokens_per_second": batch * length / seconds[len(seconds) // 2], "version": torch.__version__}))
"""


def python_with_torch(given, folder):
    if given:
        return given
    print("Installing PyTorch and transformers from PyPI into a temporary environment ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = os.path.join(folder, "bin", "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "torch", "transformers"], check=True)
    return python


def torch_rate(python, shape, batch, length, threads, steps, compile_it):
    arguments = json.dumps([shape, batch, length, threads, steps, compile_it])
    result = subprocess.run([python, "-c", TORCH, arguments], capture_output=True, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)})
    if result.returncode != 0:
        return None, result.stderr.strip().splitlines()[-1] if result.stderr.strip() else "failed"
    answer = json.loads(result.stdout.strip().splitlines()[-1])
    return answer["tokens_per_second"], answer["version"]


def our_rate(batch, length, threads, steps):
    bench = ROOT / "bazel-bin/worker/train/train_bench"
    out = subprocess.run([bench, "--preset=llama-25m", f"--batch={batch}", f"--sequence_length={length}",
                          f"--threads={threads}", f"--steps={steps}", "--json"], check=True, capture_output=True,
                         text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="an interpreter that has torch and transformers")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sequence_length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = python_with_torch(args.python, folder)
        for threads in (1, 2):
            ours = our_rate(args.batch, args.sequence_length, threads, args.steps)
            shape = ours["shape"]
            rivals = {}
            for name, compile_it in (("eager", False), ("compiled", True)):
                rate, note = torch_rate(python, shape, args.batch, args.sequence_length, threads, args.steps, compile_it)
                rivals[name] = rate
                print(f"PyTorch {note} {name}, {threads} thread(s): " + (f"{rate:.0f} tokens/s" if rate else "did not run"))
            print(f"Trainyard, {threads} thread(s): {ours['tokens_per_second']:.0f} tokens/s")
            best = max((rate for rate in rivals.values() if rate), default=None)
            if best:
                print(f"ratio to PyTorch's better mode: {ours['tokens_per_second'] / best:.2f}")


if __name__ == "__main__":
    main()
