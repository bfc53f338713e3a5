#!/usr/bin/python3
"""Dashboards, consoles, rules and alerts as files: made of their sources, complete, valid, with runbooks and tests."""
import glob
import json
import os
import re
import subprocess
import sys

import yaml

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
# CP-71 and CP-72.
ALERTS = {"QueueWaitHigh", "JobsRecoveringLoop", "GoodputLow", "WorkersLost", "NoLeader", "StoreCommitSlow", "CheckpointStale",
          "StragglerPersistent", "InvariantViolated", "ScrapeDown"}
BOARDS = {"trainyard-service", "trainyard-queues", "trainyard-jobs", "trainyard-workers", "trainyard-method"}


def path_of(name):
    return os.path.join(ROOT, name)


def read(name):
    with open(path_of(name), encoding="utf-8") as file:
        return file.read()


def run(*command):
    """What is wrong, by the program's own words; nothing if it is content."""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    return [] if result.returncode == 0 else ["%s:\n%s%s" % (" ".join(command), result.stdout, result.stderr)]


def rules():
    return [rule for path in sorted(glob.glob(path_of("deploy/prometheus/rules/*.yml")))
            for group in yaml.safe_load(read(path))["groups"] for rule in group["rules"]]


def anchors(markdown):
    """Names under which a page's sections are linked."""
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
            for title in re.findall(r"^#+ (.*)$", read(markdown), re.MULTILINE)}


def alert_problems():
    tests = yaml.safe_load(read("tests/deploy/alerts_test.yml"))["tests"]
    cases = [case for test in tests for case in test.get("alert_rule_test", [])]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    sections = anchors("docs/operations.md")
    alerts = [rule for rule in rules() if "alert" in rule]
    missing = ALERTS - {rule["alert"] for rule in alerts}
    if missing:
        yield "alerts that are missing: %s" % sorted(missing)
    for rule in alerts:
        name, annotations = rule["alert"], rule.get("annotations", {})
        if not re.fullmatch(r"([A-Z][a-z]+)+", name):
            yield "alert %s is not in CamelCase" % name
        if rule.get("labels", {}).get("severity") not in ("warning", "critical"):
            yield "alert %s has no severity" % name
        for wanted in ("summary", "description", "runbook_url"):
            if not annotations.get(wanted):
                yield "alert %s has no %s" % (name, wanted)
        page, _, anchor = annotations.get("runbook_url", "").partition("#")
        if page != "docs/operations.md" or anchor not in sections:
            yield "alert %s: the runbook %s is not there" % (name, annotations.get("runbook_url"))
        if name not in fires:
            yield "alert %s never fires in tests/deploy/alerts_test.yml" % name
    for rule in rules():
        if "record" in rule and not re.fullmatch(r"[a-z_]+:trainyard_[a-z_]+:[a-z0-9_]+", rule["record"]):
            yield "rule %s is not named level:metric:operation" % rule["record"]


def board_problems():
    seen = set()
    for path in sorted(glob.glob(path_of("deploy/grafana/*.json"))):
        name = os.path.basename(path)
        text = read(path)
        board = json.loads(text)
        seen.add(board["uid"])
        if name != board["uid"] + ".json":
            yield "%s: its uid is %s" % (name, board["uid"])
        if re.search(r"https?://|localhost|127\.0\.0\.1|\d+\.\d+\.\d+\.\d+", text):
            yield "%s names a host" % name
        kinds = {variable["name"]: variable["type"] for variable in board["templating"]["list"]}
        if kinds.get("datasource") != "datasource":
            yield "%s has no variable for the data source" % name
        numbers = [panel["id"] for panel in board["panels"]]
        if len(numbers) != len(set(numbers)):
            yield "%s: two panels with one id" % name
        taken = {}
        for panel in board["panels"]:
            sources = [panel["datasource"]] + [target["datasource"] for target in panel["targets"]]
            if any(source["uid"] != "${datasource}" for source in sources):
                yield "%s: %s is bound to one data source" % (name, panel["title"])
            for target in panel["targets"]:
                unknown = set(re.findall(r"\$(\w+)", target["expr"])) - set(kinds) - {"__rate_interval"}
                if unknown:
                    yield "%s: %s uses %s" % (name, panel["title"], sorted(unknown))
            place = panel["gridPos"]
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    if x >= 24 or (x, y) in taken:
                        yield "%s: %s lies over %s" % (name, panel["title"], taken.get((x, y), "the edge"))
                        break
                    taken[x, y] = panel["title"]
    if seen != BOARDS:
        yield "dashboards are %s" % sorted(seen)
    listed = read("deploy/grafana/kustomization.yaml")
    for uid in sorted(seen):
        if uid + ".json" not in listed:
            yield "deploy/grafana/kustomization.yaml lacks %s.json" % uid


def console_problems():
    for path in sorted(glob.glob(path_of("deploy/prometheus/consoles/*.html"))) + [
            path_of("deploy/prometheus/console_libraries/trainyard.lib")]:
        if re.search(r"(src|href)=\"?(https?:)?//", read(path)):
            yield "%s loads something from elsewhere" % os.path.basename(path)


def main():
    found = run("deploy/views/render.py", "--check")
    found += run("promtool", "check", "config", "deploy/prometheus/prometheus.yml")
    found += run("promtool", "test", "rules", "tests/deploy/alerts_test.yml")
    found += run("yamllint", "--strict", "-c", "tests/deploy/yamllint.yml", "deploy", "tests/deploy")
    found += list(alert_problems()) + list(board_problems()) + list(console_problems())
    print("\n".join(found) or "%d rules, %d dashboards and their consoles are in order" % (len(rules()), len(BOARDS)))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
