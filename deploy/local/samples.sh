#!/usr/bin/env bash
# A pool of samples from the quickstart's texts and a small target from one of them, to select data with:
#   deploy/local/samples.sh TEXTS OUT      (TEXTS: what deploy/local/corpus.sh has made)
# Each paragraph is a sample and the name of its file the source. Of the first file's samples the last 32 are the target
# and 128 before them held_out, to judge trainings by; neither is in the pool.
set -euo pipefail
texts=$1
out=$2
client=${TRAINYARD:-trainyard}
mkdir -p "$out"
python3 - "$texts" "$out" <<'END'
import json, pathlib, re, sys

texts, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
pool, target, held_out = [], [], []
for number, path in enumerate(sorted(texts.glob("*.txt"))):
    text = path.read_text(encoding="utf-8", errors="replace").replace("<|endoftext|>", "\n\n")
    parts = [part.strip() for part in re.split(r"\n\s*\n", text)]
    parts = [part[:400] for part in parts if len(part) >= 80]
    if len(parts) < 100:  # verses or glosses, a line each
        parts = [line.strip()[:400] for line in text.split("\n") if len(line.strip()) >= 80]
    parts = parts[:: max(1, len(parts) // 1000)]
    samples = [{"id": f"{path.stem}-{i:05}", "source": path.stem, "text": part} for i, part in enumerate(parts)]
    if number == 0:
        samples, held_out, target = samples[:-160], samples[-160:-32], samples[-32:]
    seen = {sample["text"] for sample in target + held_out}
    pool += [sample for sample in samples if sample["text"] not in seen]
for name, samples in (("pool", pool), ("target", target), ("held_out", held_out)):
    with open(out / f"{name}.jsonl", "w", encoding="utf-8") as file:
        for sample in samples:
            file.write(json.dumps(sample) + "\n")
END
for name in pool target held_out; do
  "$client" data samples --input "$out/$name.jsonl" --output "$out/$name" --tokenizer bytes --overwrite
done
