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
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from local_cluster import CODEC, QUEST, ROOT, LocalCluster, free_ports, job_spec

# Queries that say something only after an hour, or only when something is broken, still have to be valid.
RATE = "20s"


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
        self.port = free_ports(1)
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
    cluster = LocalCluster(os.path.abspath(arguments.bin), folder)
    server = None
    try:
        cluster.start()
        server = Server(folder, cluster.metrics, cluster.worker_metrics)
        cluster.tokenize()
        specs = (job_spec("single", 100000, kind="qat", training=QUEST, checkpoint_steps=20),
                 job_spec("pair", 100000, ranks=2, more=CODEC, checkpoint_steps=20))
        uids = [cluster.submit(spec) for spec in specs]
        cluster.submit(job_spec("short", 5))   # an attempt that ends
        for expression, series in (('rate(trainyard_checkpoint_seconds_count{phase="commit"}[1m]) > 0', 2),
                                   ("trainyard_evaluation_loss", 2), ("job_rank:trainyard_speed:ratio10m", 3),
                                   ("trainyard_quant_nmse", 1), ("trainyard_masked_ratio", 4),
                                   ("rate(trainyard_attempts_total[20s])", 1)):
            wait_for_series(server, expression, series)
        # A rate needs calls between two scrapes.
        wait_for_series(server, "method:trainyard_grpc_server_handling_seconds:p99_5m >= 0", 1,
                        meanwhile=lambda: cluster.client("list"))
        time.sleep(2)
        found, count, rules, pages = check(server)
        if arguments.keep:
            print("http://127.0.0.1:%d/consoles/service.html, folder %s; Enter ends it" % (server.port, folder))
            sys.stdin.readline()
        for uid in uids:
            cluster.client("cancel", uid)
    finally:
        if server is not None:
            server.process.send_signal(signal.SIGTERM)
            server.process.wait()
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(found) or "%d queries, %d rules and %d consoles give what they should" % (count, rules, pages))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
