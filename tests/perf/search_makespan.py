#!/usr/bin/python3
"""Time of a generation of a structured-pruning search on 1, 2 and 4 workers, against the makespan that its tokens predict.

  tests/perf/search_makespan.py --bin bazel-bin --model MODEL_DIR --data SHARD_DIR [--workers 1,2,4] [--cores_per_worker 0.45]

MODEL_DIR is a dense model of Hugging Face layout, SHARD_DIR tokens for it; both absolute. For each number of workers a cluster of its
own is started (deploy/local/cluster.sh), each worker with one slot and, by a CPU control group, its own share of a core: so
that workers do not take time from each other on a machine with fewer cores than workers. Needs root, for the groups. The
times are those of the coordinator's records of the trials: from the creation of a generation to the end of its last trial.

The prediction counts train tokens only. All tasks of a stage cost the same, and the next stage waits for the last of them:
  makespan(w) = sum over stages of ceil(tasks / w) * tokens;   tasks: the candidates that enter the stage.
"""
import argparse
import datetime
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
ADDRESS = "127.0.0.1:7272"
METRICS_PORT = 9564
OFFSPRING = 16
STAGES = [(8, 2500, 1024), (4, 12500, 2048), (2, 25000, 4096), (1, 50000, 8192)]  # survivors, train and evaluation tokens
GROUPS = "/sys/fs/cgroup/cpu"
PERIOD_US = 20000

JOB = """
name: makespan
seed: 1
prune_search:
  database: {levels: 5, calibration_tokens: 16384}
  search:
    generations: %d
    offspring: %d
    stages:
%s
    fine_tune: {learning_rate: 1.0e-4}
model: {path: %s}
data: {path: %s, sequence_length: 128}
"""


def predicted(tasks, workers):
    """Train tokens one worker sees until a generation ends; `tasks`: of each stage."""
    return sum(math.ceil(count / workers) * stage[1] for count, stage in zip(tasks, STAGES))


def run(*command, **options):
    return subprocess.run(command, check=True, text=True, capture_output=True, **options).stdout


def limit(pid, name, cores):
    """Moves a daemon, with the spawner it forked, into a group of its own; what they start is born there."""
    group = os.path.join(GROUPS, name)
    os.makedirs(group, exist_ok=True)
    for file, value in (("cpu.cfs_period_us", PERIOD_US), ("cpu.cfs_quota_us", int(cores * PERIOD_US))):
        with open(os.path.join(group, file), "w") as out:
            out.write(str(value))
    children = run("ps", "-o", "pid=", "--ppid", str(pid)).split()
    for process in [str(pid)] + children:
        with open(os.path.join(group, "cgroup.procs"), "w") as out:
            out.write(process)


def seconds(timestamp):
    return datetime.datetime.fromisoformat(timestamp[:26].rstrip("Z")).timestamp()


def measure(options, workers, folder):
    """Generations of one search as (label, tasks, seconds)."""
    environment = dict(os.environ, TRAINYARD_BIN=options.bin, TRAINYARD_ADDRESS=ADDRESS)
    cluster = [os.path.join(ROOT, "deploy", "local", "cluster.sh")]
    place = ["--dir", folder, "--address", ADDRESS, "--metrics_port", str(METRICS_PORT)]
    client = os.path.join(options.bin, "client", "trainyard")
    spec = os.path.join(folder, "job.yaml")
    os.makedirs(folder)
    with open(spec, "w") as out:
        stages = "\n".join("      - {survivors: %d, train_tokens: %d, evaluation_tokens: %d}" % stage for stage in STAGES)
        out.write(JOB % (options.generations, OFFSPRING, stages, options.model, options.data))
    try:
        run(*cluster, "start", "--workers", str(workers), "--slots", "1", *place, env=environment)
        for i in range(1, workers + 1):
            with open(os.path.join(folder, "worker-%d.pid" % i)) as file:
                limit(int(file.read()), "trainyard-makespan-%d" % i, options.cores_per_worker)
        run(client, "submit", "-f", spec, "--watch", "--quiet", env=environment)
        job = json.loads(run(client, "get", "makespan", "-o", "json", env=environment))
        return [(g["label"], int(g["totalCount"]), seconds(g["endTime"]) - seconds(g["createTime"]))
                for g in job["generations"]]
    finally:
        run(*cluster, "stop", *place[:2], env=environment)
        for i in range(1, workers + 1):
            try:
                os.rmdir(os.path.join(GROUPS, "trainyard-makespan-%d" % i))
            except OSError:
                pass  # A process is still ending; the next run takes the group over.


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=os.path.abspath, help="laid out like bazel-bin")
    parser.add_argument("--model", required=True, type=os.path.abspath)
    parser.add_argument("--data", required=True, type=os.path.abspath)
    parser.add_argument("--workers", default="1,2,4", type=lambda text: [int(w) for w in text.split(",")])
    parser.add_argument("--cores_per_worker", default=0.45, type=float)
    parser.add_argument("--generations", default=2, type=int)
    options = parser.parse_args()
    if max(options.workers) * options.cores_per_worker > os.cpu_count():
        parser.error("--cores_per_worker: %g of %d workers are more than the %d cores here" %
                     (options.cores_per_worker, max(options.workers), os.cpu_count()))
    first = None
    with tempfile.TemporaryDirectory(prefix="trainyard-makespan-") as scratch:
        for workers in options.workers:
            rows = measure(options, workers, os.path.join(scratch, str(workers)))
            for row in rows:
                print("%d workers: %-24s %3d trials %8.2f s" % ((workers,) + row), flush=True)
            stages = [row for row in rows if "stage" in row[0]]
            total = sum(row[2] for row in stages)
            tokens = predicted([row[1] for row in stages[:len(STAGES)]], workers)
            first = first or (total, tokens)
            print("%d workers: %.1f s in the stages of %d generations; %.2f times as fast as the first, by tokens %.2f" %
                  (workers, total, options.generations, first[0] / total, first[1] / tokens), flush=True)
            shutil.rmtree(os.path.join(scratch, str(workers)), ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
