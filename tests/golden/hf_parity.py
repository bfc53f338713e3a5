#!/usr/bin/env python3
"""Checks that models travel between Trainyard and Hugging Face transformers, both ways, with the same logits.

    python3 -m venv VENV && VENV/bin/pip install torch transformers safetensors     (large)
    bazel build --config=opt //worker/model:hf_roundtrip //worker/prune:hf_shrink
    VENV/bin/python tests/golden/hf_parity.py                    # the check
    VENV/bin/python tests/golden/hf_parity.py --fixture          # rewrites worker/model/testdata

The check, for each of a Llama, a Qwen2 and a Llama 3 with all its options, in one file and in shards: transformers
makes and saves a model; hf_roundtrip imports it, computes logits and exports it again; transformers opens the export.
All three sets of logits must agree.

Structured pruning: hf_shrink removes heads and MLP channels from each of the models, alike in every block; transformers
opens what it writes under the same class, and both give the logits of the model whose removed columns are zero.
"""
import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOLERANCE = 1e-5  # logits are around 1; both sides compute in f32

COMMON = dict(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
              max_position_embeddings=64, attention_dropout=0.0, pad_token_id=None, bos_token_id=None)
LLAMA3_ROPE = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=16)


def make_models():
    transformers_5 = int(transformers.__version__.split(".")[0]) >= 5

    def rope(theta, scaling=None):
        if transformers_5:
            return dict(rope_parameters=dict(scaling or dict(rope_type="default"), rope_theta=theta))
        return dict(rope_theta=theta, rope_scaling=scaling)

    yield "tiny-llama", transformers.LlamaForCausalLM, transformers.LlamaConfig(
        **COMMON, num_key_value_heads=2, rms_norm_eps=1e-5, tie_word_embeddings=False, eos_token_id=7, **rope(1e4))
    yield "tiny-qwen2", transformers.Qwen2ForCausalLM, transformers.Qwen2Config(
        **COMMON, num_key_value_heads=2, rms_norm_eps=1e-6, tie_word_embeddings=True, eos_token_id=7, **rope(1e6))
    yield "tiny-llama3", transformers.LlamaForCausalLM, transformers.LlamaConfig(
        **COMMON, num_key_value_heads=1, head_dim=8, rms_norm_eps=1e-5, attention_bias=True, tie_word_embeddings=False,
        eos_token_id=[7, 9], **rope(5e5, LLAMA3_ROPE))


def randomize(model):
    """Weights large enough that every part of the network shows in the logits; biases and norms too."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.2 * noise if "norm" in name else 0.2 * noise)


def logits_of(model, tokens):
    with torch.no_grad():
        return model(tokens.long(), use_cache=False).logits.float()


def make(name, model_class, config):
    torch.manual_seed(sum(map(ord, name)))
    model = model_class._from_config(config, attn_implementation="eager").float().eval()
    randomize(model)
    tokens = torch.randint(0, config.vocab_size, (2, 33), dtype=torch.int32)
    return model, tokens


def write_fixtures():
    for name, model_class, config in make_models():
        folder = ROOT / "worker/model/testdata" / name
        shutil.rmtree(folder, ignore_errors=True)
        model, tokens = make(name, model_class, config)
        model.save_pretrained(folder)
        save_file({"tokens": tokens, "logits": logits_of(model, tokens)}, folder / "expected.safetensors")
        print(f"{folder}: written")


def check(program):
    worst = 0.0
    for name, model_class, config in make_models():
        for shard_size in ("1GB", "8KB"):
            with tempfile.TemporaryDirectory() as scratch:
                theirs, ours = pathlib.Path(scratch) / "theirs", pathlib.Path(scratch) / "ours"
                ours.mkdir()
                model, tokens = make(name, model_class, config)
                model.save_pretrained(theirs, max_shard_size=shard_size)
                save_file({"tokens": tokens}, theirs / "tokens.st")
                subprocess.run([program, theirs, theirs / "tokens.st", ours], check=True)
                expected = logits_of(model, tokens)
                imported = load_file(ours / "logits.safetensors")["logits"]
                (ours / "logits.safetensors").unlink()
                reopened, report = transformers.AutoModelForCausalLM.from_pretrained(
                    ours, attn_implementation="eager", dtype=torch.float32, output_loading_info=True)
                exported = logits_of(reopened.eval(), tokens)
                import_error = (imported - expected).abs().max().item()
                export_error = (exported - expected).abs().max().item()
                missing = report["missing_keys"] or report["unexpected_keys"]
                shards = len(list(theirs.glob("*.safetensors")))
                print(f"{name:12} {shards} files: max |logit| {expected.abs().max():.3f}, error of import "
                      f"{import_error:.2e}, of export {export_error:.2e}, class {type(reopened).__name__}")
                if type(reopened) is not model_class or missing:
                    sys.exit(f"{name}: opened as {type(reopened).__name__}, keys {report}")
                worst = max(worst, import_error, export_error)
    return worst


def zero_columns(model, heads, channels):
    config = model.config
    group = config.num_attention_heads // config.num_key_value_heads
    with torch.no_grad():
        for layer in model.model.layers:
            o = layer.self_attn.o_proj.weight.view(config.hidden_size, config.num_attention_heads, -1)
            for head in range(config.num_attention_heads):
                if head % group < heads:
                    o[:, head] = 0
            layer.mlp.down_proj.weight[:, :channels] = 0


def check_shrunk(program):
    worst = 0.0
    for name, model_class, config in make_models():
        with tempfile.TemporaryDirectory() as scratch:
            theirs, ours = pathlib.Path(scratch) / "theirs", pathlib.Path(scratch) / "ours"
            ours.mkdir()
            model, tokens = make(name, model_class, config)
            model.save_pretrained(theirs)
            save_file({"tokens": tokens}, theirs / "tokens.st")
            # transformers 5 refuses a number of heads that does not divide hidden_size
            heads = max(1, config.num_attention_heads // config.num_key_value_heads // 2)
            subprocess.run([program, theirs, theirs / "tokens.st", ours, str(heads), "9"], check=True)
            dense = logits_of(model, tokens)
            zero_columns(model, heads, 9)
            expected = logits_of(model, tokens)
            shrunk = load_file(ours / "logits.safetensors")["logits"]
            (ours / "logits.safetensors").unlink()
            reopened, report = transformers.AutoModelForCausalLM.from_pretrained(
                ours, attn_implementation="eager", dtype=torch.float32, output_loading_info=True)
            opened = logits_of(reopened.eval(), tokens)
            shrunk_error = (shrunk - expected).abs().max().item()
            opened_error = (opened - expected).abs().max().item()
            small = reopened.config
            print(f"{name:12} {config.num_attention_heads} -> {small.num_attention_heads} heads, "
                  f"{config.intermediate_size} -> {small.intermediate_size} channels: logits moved by "
                  f"{(expected - dense).abs().max():.3f}, error of ours {shrunk_error:.2e}, of transformers on our "
                  f"folder {opened_error:.2e}, class {type(reopened).__name__}")
            if type(reopened) is not model_class or report["missing_keys"] or report["unexpected_keys"]:
                sys.exit(f"{name}: opened as {type(reopened).__name__}, keys {report}")
            worst = max(worst, shrunk_error, opened_error)
    return worst


def check_all(roundtrip, shrink):
    worst = max(check(roundtrip), check_shrunk(shrink))
    if worst > TOLERANCE:
        sys.exit(f"FAILED: worst error {worst:.2e} is above {TOLERANCE}")
    print(f"passed: worst error {worst:.2e} (transformers {transformers.__version__}, torch {torch.__version__})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fixture", action="store_true", help="rewrite worker/model/testdata")
    parser.add_argument("--program", default=ROOT / "bazel-bin/worker/model/hf_roundtrip")
    parser.add_argument("--shrink_program", default=ROOT / "bazel-bin/worker/prune/hf_shrink")
    arguments = parser.parse_args()
    write_fixtures() if arguments.fixture else check_all(arguments.program, arguments.shrink_program)
