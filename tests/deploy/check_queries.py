#!/usr/bin/python3
"""Runs every query of dashboards, consoles, rules and alerts against a real Prometheus that scrapes a live small cluster
(deploy/local/cluster.sh with two workers and two jobs), configured by deploy/prometheus/prometheus.yml.

  tests/deploy/check_queries.py --bin DIR    # DIR is laid out like bazel-bin

A query must be valid, and give something, except where the view says that it needs what this cluster has not (`when`).
"""
import argparse
import glob
import html
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
# Queries that say something only after an hour, or only when something is broken, still have to be valid.
RATE = "20s"
JOB = """
name: %s
world: {min: 1, slot_type: cpu, threads_per_rank: 1}
seed: 7
%s
model:
  shape: {vocab_size: 512, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4,
          num_key_value_heads: 2}
data: {path: data, sequence_length: 64}
training:
  steps: %d
%s  micro_batch: 2
  optimizer: {adamw: {learning_rate: 3.0e-3}}
  schedule: {shape: cosine, warmup_steps: 5}
  evaluation: {interval_steps: 20, batches: 1}
checkpoint: {interval_steps: 20, keep_last: 2}
%s
"""
QUEST = """  linear: {quest: {hadamard_dim: 64}}
"""
WORLD_OF_TWO = {"world: {min: 1,": "world: {min: 2,"}
CODEC = """communication:
  exchange: sra
  codec: {maxmin: {bits: 4, bucket_size: 512}}
  phase2_bits: 8
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def free_ports(count):
    """`count` ports in a row, as deploy/local/cluster.sh takes them for metrics."""
    for _ in range(100):
        first = free_port()
        sockets = []
        try:
            for i in range(count):
                one = socket.socket()
                sockets.append(one)
                one.bind(("127.0.0.1", first + i))
            return first
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise SystemExit("no %d free ports in a row" % count)


class Server:
    """A Prometheus with deploy's own configuration, rules, consoles; only intervals are shortened."""

    def __init__(self, folder, coordinator, workers):
        shutil.copytree(os.path.join(ROOT, "deploy", "prometheus"), os.path.join(folder, "prometheus"))
        config = os.path.join(folder, "prometheus", "prometheus.yml")
        text = open(config, encoding="utf-8").read()
        text = re.sub(r"(scrape_interval|evaluation_interval): 15s", r"\1: 1s", text)
        with open(config, "w", encoding="utf-8") as file:
            file.write(text)
        for name, targets in (("coordinator", [coordinator]), ("workers", workers)):
            with open(os.path.join(folder, "prometheus", "targets", name + ".yml"), "w", encoding="utf-8") as file:
                yaml.safe_dump([{"targets": targets}], file)
        self.port = free_port()
        self.log = open(os.path.join(folder, "prometheus.log"), "wb")
        self.process = subprocess.Popen(
            ["prometheus", "--config.file=" + config, "--storage.tsdb.path=" + os.path.join(folder, "tsdb"),
             "--web.listen-address=127.0.0.1:%d" % self.port,
             "--web.console.templates=" + os.path.join(folder, "prometheus", "consoles"),
             "--web.console.libraries=" + os.path.join(folder, "prometheus", "console_libraries")],
            stdout=self.log, stderr=self.log)

    def get(self, path):
        """Body and status of a page."""
        try:
            with urllib.request.urlopen("http://127.0.0.1:%d%s" % (self.port, path), timeout=20) as answer:
                return answer.read().decode(), answer.status
        except urllib.error.HTTPError as error:
            return error.read().decode(), error.code
        except OSError as error:
            return str(error), 0

    def query(self, expression):
        """Series of an instant query; a text if it is refused."""
        body, status = self.get("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        if status != 200:
            return body
        return json.loads(body)["data"]["result"]


def wait_for_series(server, expression, count, seconds=300, meanwhile=lambda: None):
    end = time.monotonic() + seconds
    while True:
        meanwhile()
        result = server.query(expression)
        if len(result) >= count and not isinstance(result, str):
            return
        if time.monotonic() > end:
            raise SystemExit("not within %d s: %d series of %s, but %s" % (seconds, count, expression, result))
        time.sleep(0.5)


def queries():
    """(place, expression, must it give something now)"""
    for board in yaml.safe_load(open(os.path.join(ROOT, "deploy/views/views.yaml"), encoding="utf-8"))["boards"]:
        for panel in board["panels"]:
            for query in panel["queries"]:
                yield "views.yaml: %s: %s" % (board["title"], panel["title"]), query["expr"], "when" not in panel
    for path in sorted(glob.glob(os.path.join(ROOT, "deploy/grafana/*.json"))):
        board = json.load(open(path, encoding="utf-8"))
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield "%s: %s" % (os.path.basename(path), panel["title"]), target["expr"], False
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
                yield "%s: choices of %s" % (os.path.basename(path), variable["name"]), "count by (%s) (%s)" % (label, metric), True
    for path in sorted(glob.glob(os.path.join(ROOT, "deploy/prometheus/consoles/*.html"))):
        for found in re.findall(r'data-queries="([^"]*)"', open(path, encoding="utf-8").read()):
            for query in json.loads(html.unescape(found)):
                yield os.path.basename(path), query["expr"], False


def fill_in(expression):
    return re.sub(r"\$(__rate_interval|rate)", RATE, expression).replace("$job", ".+").replace("$queue", ".+")


def check(server):
    found = []
    count = 0
    for place, expression, must_give in queries():
        count += 1
        result = server.query(fill_in(expression))
        if isinstance(result, str):
            found.append("%s: %s: refused: %s" % (place, expression, result))
        elif must_give and not result:
            found.append("%s: %s: gives nothing" % (place, expression))
    # Rules and alerts are evaluated by the server itself.
    rules, status = server.get("/api/v1/rules")
    groups = json.loads(rules)["data"]["groups"] if status == 200 else []
    evaluated = [rule for group in groups for rule in group["rules"]]
    for rule in evaluated:
        if rule["health"] != "ok":
            found.append("rule %s: %s %s" % (rule["name"], rule["health"], rule.get("lastError", "")))
        if rule["type"] == "alerting" and rule["state"] != "inactive" and rule["name"] in ("NoLeader", "ScrapeDown", "WorkersLost"):
            found.append("alert %s is %s on a healthy cluster" % (rule["name"], rule["state"]))
    written = sum(len(group["rules"]) for path in glob.glob(os.path.join(ROOT, "deploy/prometheus/rules/*.yml"))
                  for group in yaml.safe_load(open(path, encoding="utf-8"))["groups"])
    if len(evaluated) != written:
        found.append("%d rules are written, the server has %d" % (written, len(evaluated)))
    pages = [os.path.basename(path) for path in sorted(glob.glob(os.path.join(ROOT, "deploy/prometheus/consoles/*.html")))]
    for page in pages:
        body, status = server.get("/consoles/" + page)
        if status != 200 or "</html>" not in body or "error executing template" in body:
            found.append("console %s: status %d: %s" % (page, status, body[:300]))
        elif "<no value>" in body or not re.search(r"<td>[^<]*\d", body.replace("</td><td>", "</td><td> ")) and "class=\"value\"" in body:
            found.append("console %s shows no numbers" % page)
    jobs, _ = server.get("/consoles/jobs.html")
    if len(re.findall(r"<option[^>]*>[0-9a-f-]{36}</option>", jobs)) != 2:
        found.append("console jobs.html does not offer the two jobs")
    return found, count, len(evaluated), len(pages)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(ROOT, "bazel-bin"))
    parser.add_argument("--keep", action="store_true", help="leave all running until Enter, to look at the consoles")
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="trainyard-queries-")
    binaries = os.path.abspath(arguments.bin)
    metrics = free_ports(3)
    address = "127.0.0.1:%d" % free_port()
    environment = dict(os.environ, TRAINYARD_BIN=binaries, TRAINYARD_ADDRESS=address)
    local = [os.path.join(ROOT, "deploy/local/cluster.sh")]
    options = ["--dir", os.path.join(folder, "cluster"), "--address", address]

    def client(*command, stdin=None):
        return subprocess.run([os.path.join(binaries, "client/trainyard"), *command], env=environment, input=stdin,
                              capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    server = None
    try:
        subprocess.run(local + ["start", "--workers", "2", "--slots", "2", "--metrics_port", str(metrics)] + options,
                       env=environment, check=True, stdout=subprocess.DEVNULL)
        server = Server(folder, "127.0.0.1:%d" % metrics, ["127.0.0.1:%d" % (metrics + i) for i in (1, 2)])
        text = os.path.join(folder, "text.txt")
        with open(text, "w", encoding="utf-8") as file:
            file.write("".join("line %d of a text, %d\n" % (i, i * i % 91) for i in range(4000)))
        subprocess.run([os.path.join(binaries, "worker/tools/trainyard-local"), "data", "tokenize", "--input", text, "--output",
                        os.path.join(folder, "cluster", "data"), "--tokenizer", "bytes", "--validation_fraction", "0.05"],
                       check=True, stdout=subprocess.DEVNULL)
        pair = JOB % ("pair", "pretrain: {}", 100000, "", CODEC)
        for old, new in WORLD_OF_TWO.items():
            pair = pair.replace(old, new)
        uids = [client("--quiet", "submit", "-f", "-", stdin=spec) for spec in (JOB % ("single", "qat: {}", 100000, QUEST, ""), pair)]
        client("--quiet", "submit", "-f", "-", stdin=JOB % ("short", "pretrain: {}", 5, "", ""))   # an attempt that ends
        for expression, series in (('rate(trainyard_checkpoint_seconds_count{phase="commit"}[1m]) > 0', 2),
                                   ("trainyard_evaluation_loss", 2), ("job_rank:trainyard_speed:ratio10m", 3),
                                   ("trainyard_quant_nmse", 1), ("trainyard_masked_ratio", 4),
                                   ("rate(trainyard_attempts_total[20s])", 1)):
            wait_for_series(server, expression, series)
        # A rate needs calls between two scrapes.
        wait_for_series(server, "method:trainyard_grpc_server_handling_seconds:p99_5m >= 0", 1,
                        meanwhile=lambda: client("list"))
        time.sleep(2)
        found, count, rules, pages = check(server)
        if arguments.keep:
            print("http://127.0.0.1:%d/consoles/service.html, folder %s; Enter ends it" % (server.port, folder))
            sys.stdin.readline()
        for uid in uids:
            client("cancel", uid)
    finally:
        if server is not None:
            server.process.send_signal(signal.SIGTERM)
            server.process.wait()
        subprocess.run(local + ["stop"] + options, env=environment, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(found) or "%d queries, %d rules and %d consoles give what they should" % (count, rules, pages))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
