#!/usr/bin/env python3
"""Compares our tokenizer with Hugging Face's `tokenizers`, id by id, in both directions.

    python3 -m venv v && v/bin/pip install tokenizers==0.23.3
    v/bin/python tests/golden/tokenizer_parity.py --binary bazel-bin/worker/tools/trainyard-local --corpus DIR

For each way of cutting words (gpt2, llama3, qwen2): we train on the corpus, they load our tokenizer.json; they train,
we load theirs. Then both encode the corpus, every code point of Unicode, and random mixtures of the characters on which
pre-tokenizers differ. Prints what was compared; exits 1 at the first difference. Not part of tests/run.sh, which has
no PyPI; --write_golden renews the fixture that the unit test reads."""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers

END = "<|endoftext|>"
CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
REST = r"[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = f"(?i:{CONTRACTIONS})|" + REST.replace("NUMBER", r"\p{N}{1,3}")
QWEN2 = f"(?i:{CONTRACTIONS})|" + REST.replace("NUMBER", r"\p{N}")


def pre_tokenizer(words):
    if words == "gpt2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if words == "digits":
        return pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    if words == "none":
        return bytes_only
    pattern = {"llama3": LLAMA3, "qwen2": QWEN2}[words]
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), bytes_only])


def train_theirs(words, texts, vocab_size, ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer(words)
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[END], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken("<extra one>", normalized=False)])
    return tokenizer


def tricky_texts(seed, count):
    """Mixtures of what pre-tokenizers cut differently: spaces of all kinds, quotes, digits, scripts, folding s."""
    rng = random.Random(seed)
    pieces = [" ", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\x85", "\x0b", "\x1c", "'", "'s", "'S",
              "'re", "'RE", "'lL", "'\u017f", "\u2019s", "'d", "'m", "'ve", "'t", "a", "Z", "word", "the", "\u00e9",
              "e\u0301", "\u00df", "\u4e2d\u6587", "\u0915\u094d\u0937", "\u0e01\u0e33", "\U0001d7d8", "\u0663", "\u00bd",
              "\u2167", "7", "1234", "3.14", "!", "...", "--", "_", "\u20ac", "\U0001f600", "\U0001f469\u200d\U0001f680",
              "\u200b", "\ufeff", "\u0000", END, "<|endof", "<extra one>", "\u212a", "\ufb06", "\u0130"]
    return ["".join(rng.choice(pieces) for _ in range(rng.randint(1, 24))) for _ in range(count)]


def all_code_points():
    texts = []
    for begin in range(0, 0x110000, 64):
        codes = [c for c in range(begin, begin + 64) if not 0xD800 <= c <= 0xDFFF]
        if codes:  # between a letter, a digit and a mark, so that each class shows
            texts.append("".join(f"a{chr(c)}1 {chr(c)}!" for c in codes))
    return texts


class Ours:
    def __init__(self, binary, path):
        self.command = [binary, "data", "encode", "--tokenizer", str(path), "--lines"]

    def encode(self, texts):
        lines = "".join(json.dumps(text) + "\n" for text in texts)
        result = subprocess.run(self.command, input=lines.encode(), stdout=subprocess.PIPE, check=True)
        return [[int(word) for word in line.split()] for line in result.stdout.decode().split("\n")[:-1]]


def compare(label, ours, theirs, texts):
    expected = [encoding.ids for encoding in theirs.encode_batch(texts, add_special_tokens=False)]
    got = ours.encode(texts)
    assert len(got) == len(expected), (label, len(got), len(expected))
    for text, mine, other in zip(texts, got, expected):
        if mine != other:
            print(f"{label}: DIFFERENT\n  text   {text[:300]!r}\n  ours   {mine[:100]}\n  theirs {other[:100]}")
            sys.exit(1)
    print(f"{label}: {len(texts)} texts, {sum(map(len, expected))} tokens: equal", flush=True)


def write_golden(folder, texts):
    """A small tokenizer of theirs, and what it makes of some texts."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = tricky_texts(99, 60) + [texts[0][:400], "It's 2024: we'll see!\n\n  Indented\tline. ", "", " ", "aaaaaaa" * 20]
    for words in ("gpt2", "llama3"):
        tokenizer = train_theirs(words, texts[:60], 500)
        tokenizer.save(str(folder / f"{words}.tokenizer.json"), pretty=False)
        cases = [{"text": s, "ids": tokenizer.encode(s, add_special_tokens=False).ids} for s in samples]
        (folder / f"{words}.expected.json").write_text("\n".join(["[", *[json.dumps(c) + "," for c in cases[:-1]],
                                                                  json.dumps(cases[-1]), "]"]) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default="bazel-bin/worker/tools/trainyard-local")
    parser.add_argument("--corpus", required=True, help="folder of .txt files, as deploy/local/corpus.sh makes it")
    parser.add_argument("--write_golden", help="folder for the fixture: worker/data/testdata")
    flags = parser.parse_args()

    documents = []
    for path in sorted(pathlib.Path(flags.corpus).glob("*.txt")):
        documents += [d.lstrip("\n") for d in path.read_text().split(END) if d.strip()]
    if flags.write_golden:
        write_golden(pathlib.Path(flags.write_golden), documents)
    random.Random(1).shuffle(documents)
    documents = documents[:1500]
    sets = {"corpus": documents, "tricky": tricky_texts(2, 10000), "code points": all_code_points(),
            "long": ["a" * 5000 + "the " * 3000, "".join(documents[:200]).replace(" ", "").replace("\n", "")]}
    with tempfile.TemporaryDirectory() as folder:
        for words in ("gpt2", "llama3", "qwen2"):
            output = f"{folder}/{words}"
            subprocess.run([flags.binary, "data", "tokenize", "--input", flags.corpus, "--output", output, "--words", words,
                            "--vocab_size", "3000", "--quiet"], check=True, stdout=subprocess.DEVNULL)
            path = f"{output}/tokenizer.json"
            for name, texts in sets.items():
                compare(f"ours ({words}), {name}", Ours(flags.binary, path), Tokenizer.from_file(path), texts)
        # Which byte-level alphabet, ids and added tokens they choose differs from ours; we must read them all. "digits"
        # knows the numbers of another Unicode version than \p{N}, so code points are left out there.
        for words, ignore_merges in (("gpt2", False), ("llama3", True), ("qwen2", False), ("digits", False), ("none", False)):
            theirs = train_theirs(words, documents[:300] if words == "none" else documents, 3000, ignore_merges)
            path = f"{folder}/{words}.json"
            theirs.save(path)
            for name, texts in sets.items():
                if words == "digits" and name == "code points" or words == "none" and name == "long":
                    continue
                compare(f"theirs ({words}), {name}", Ours(flags.binary, path), theirs, texts)


if __name__ == "__main__":
    main()
