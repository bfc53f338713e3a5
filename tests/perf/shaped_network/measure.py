#!/usr/bin/env python3
"""Steps, bytes and losses of jobs on links of several speeds, with real coordinator, daemons and runners, each worker
in a network namespace of its own. Needs root. Build first: bazel build --config=opt of the five programs.

  measure.py speed --kind pretrain --workers 2 4     every codec at every rate; writes one JSON line a run
  measure.py loss --kind pretrain --seeds 1 2 3      losses after --steps steps, unshaped
  report.py RESULTS.jsonl                            tables and plots from those lines
"""
import argparse
import contextlib
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

from cluster import Cluster
from jobs import BASES, CODECS, job
from network import Network

ROOT = pathlib.Path(__file__).resolve().parents[3]
WARMUP = 3  # steps that are not measured: PowerSGD starts late, caches fill


def make_data(folder, programs):
    """English text from Debian packages as token shards; `folder`/data/english."""
    text = pathlib.Path(folder) / "text"
    subprocess.run([str(ROOT / "deploy/local/corpus.sh"), str(text)], check=True, capture_output=True)
    subprocess.run([str(pathlib.Path(programs) / "client/trainyard"), "data", "tokenize", "--input", str(text), "--output",
                    str(pathlib.Path(folder) / "data/english"), "--tokenizer", "bpe", "--vocab_size", "4096"],
                   check=True, capture_output=True)


def measured(points):
    points = [p for p in points if p["step"] > WARMUP]
    middle = lambda name: statistics.median(p.get(name, 0.0) for p in points)
    return {name: middle(name) for name in ("step_seconds", "comm_seconds", "comm_exposed_seconds", "quant_seconds",
                                            "comm_bytes", "compression_ratio")}


def run_one(cluster, network, workers, kind, codec, rate, steps, seed=1):
    hosts = range(2, 2 + workers)
    network.shape(hosts, rate)
    record, points = cluster.train(job(kind, workers, steps, codec, seed))
    counted = [network.bytes_sent(host) for host in hosts]
    return {
        "kind": kind, "codec": codec, "workers": workers, "rate": rate, "steps": steps, "seed": seed,
        **measured(points),
        # The kernel's count of what left worker 0, headers, acknowledgements and control traffic included, against the
        # payload of the exchange.
        "link_bytes": counted[0],
        "payload_bytes": sum(p.get("comm_bytes", 0.0) for p in points),
        "train_seconds": sum(p.get("step_seconds", 0.0) for p in points),
        "losses": [p.get("loss", p.get("loss_d")) for p in points],
        "values": record.get("result", {}).get("values", {}),
    }


@contextlib.contextmanager
def cluster_of(workers, args):
    with tempfile.TemporaryDirectory() as folder:
        network = Network(workers + 1)
        try:
            if args.kind == "pretrain":
                make_data(folder, args.programs)
            cluster = Cluster(network, workers, args.programs, folder)
            try:
                yield cluster, network
            finally:
                cluster.close()
        finally:
            network.close()


def emit(args, result):
    with open(args.output, "a") as out:
        out.write(json.dumps(result) + "\n")
    rate = f"{result['rate']} Mbit/s" if result["rate"] else "unshaped"
    print(f"{result['what']}: {result['kind']}, {result['workers']} workers, {rate}, {result['codec']}: "
          f"step {result['step_seconds']:.3f} s, exposed {result['comm_exposed_seconds']:.3f} s, "
          f"link/payload {result['link_bytes'] / max(1, result['payload_bytes']):.3f}, "
          f"loss {result['losses'][-1]:.4f}", flush=True)


def speed(args):
    for workers in args.workers:
        with cluster_of(workers, args) as (cluster, network):
            for rate in args.rates:
                for codec in args.codecs:
                    emit(args, {"what": "speed", **run_one(cluster, network, workers, args.kind, codec, rate, args.steps)})


def loss(args):
    for workers in args.workers:
        with cluster_of(workers, args) as (cluster, network):
            for seed in args.seeds:
                for codec in args.codecs:
                    emit(args, {"what": "loss",
                                **run_one(cluster, network, workers, args.kind, codec, None, args.steps, seed)})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "loss"))
    parser.add_argument("--kind", choices=BASES, default="pretrain")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--codecs", nargs="+", choices=CODECS, default=list(CODECS))
    parser.add_argument("--rates", nargs="+", type=lambda text: None if text == "unshaped" else int(text),
                        default=[None, 1000, 400, 200, 100, 50], help="Mbit/s, or the word unshaped")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--programs", default=str(ROOT / "bazel-bin"), help="Bazel's output folder")
    parser.add_argument("--output", default="shaped_network.jsonl")
    args = parser.parse_args()
    if args.steps <= WARMUP + 2:
        parser.error(f"--steps: {args.steps}; give at least {WARMUP + 3}, since {WARMUP} are not measured")
    {"speed": speed, "loss": loss}[args.what](args)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
