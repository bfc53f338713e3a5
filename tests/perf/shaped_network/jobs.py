"""The jobs that are measured, and the forms their gradients travel in."""

import copy

# Name in tables -> communication section. Phase 2 (the owner's sum on its way back) is 8 bits unless it says otherwise.
CODECS = {
    "fp32": {"codec": {"identity": {}}},
    "8 bits": {"codec": {"maxmin": {"bits": 8}}},
    "4 bits": {"codec": {"maxmin": {"bits": 4}}},
    "2 bits": {"codec": {"maxmin": {"bits": 2}}, "phase2_bits": 4},
    "PowerSGD": {"codec": {"power_sgd": {"rank": 4, "start_step": 2}}},
}

# Runs of so many steps are about losses, shorter ones about the time of a step.
LONG = 50

# A language model whose exchange is long against its computation on this CPU: 4.9 M parameters, 128 tokens a rank.
PRETRAIN = {
    "pretrain": {},
    "model": {"preset": "llama-5m"},
    "data": {"path": "data/english", "sequence_length": 64},
    "training": {"micro_batch": 2, "evaluation": {"interval_steps": 0},
                 "optimizer": {"adamw": {"learning_rate": 1e-3}}, "schedule": {"warmup_steps": 4}},
}

# The QODA GAN's small form: 1.9 M parameters on Fashion-MNIST, a fixed global batch.
GAN = {
    "qoda_gan": {
        "networks": {"dcgan32": {"filters": 64, "generator_norm": "group"}},
        "data": {"idx": {"images": "/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz"}},
        "optimizer": {"optimistic_adam": {"lr_d": 2e-4, "lr_g": 2e-4}},
        "global_batch": 16, "evaluation_interval": 0, "sample_interval": 0,
    },
}

# Eight modes on a ring by small nets, as deploy/examples/qoda-gan-mixture.yaml: what a code does to the result.
MIXTURE = {
    "qoda_gan": {
        "networks": {"mlp": {"hidden": 64, "layers": 2}},
        "data": {"mixture": {"layout": "ring", "spacing": 1.0, "stddev": 0.1}},
        "optimizer": {"optimistic_adam": {"lr_d": 2e-3, "lr_g": 4e-4}},
        "global_batch": 256, "latent_dim": 4, "gp_lambda": 0.1, "ema": 0.99, "scored": "ema",
        "evaluation_interval": 0, "sample_interval": 0,
    },
}

BASES = {"pretrain": PRETRAIN, "qoda_gan": GAN, "mixture": MIXTURE}


def job(kind, workers, steps, codec, seed=1):
    spec = copy.deepcopy(BASES[kind])
    if kind == "pretrain":
        spec["training"]["steps"] = steps
        spec["training"]["schedule"] = {"warmup_steps": min(4, steps)}
    else:
        spec["qoda_gan"]["updates"] = steps
        # The ranks gather their samples to score them; in short runs those bytes would drown the gradients'.
        spec["qoda_gan"]["evaluation_samples"] = 64 if steps < LONG else 1024
    spec.update({
        "world": {"min": workers, "threads_per_rank": 1},
        "seed": seed,
        "checkpoint": {"interval_steps": 1000000, "on_stop": False},
        "communication": {**CODECS[codec], "timeout": "600s"},
    })
    return spec
