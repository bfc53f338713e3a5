#!/usr/bin/python3
"""Names that deploy/ and the programs must share: flags, ports, paths, metrics. So that neither drifts from the other.

  tests/deploy/check_names.py --bin DIR     # DIR is laid out like bazel-bin
"""
import argparse
import glob
import os
import re
import subprocess
import sys

import yaml

import kustomize
import rules

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
PROGRAMS = {
    "trainyard-coordinator": "coordinator/trainyard-coordinator",
    "trainyard-worker": "worker/daemon/trainyard-worker",
    "trainyard-runner": "worker/runner/trainyard-runner",
    "trainyard-local": "worker/tools/trainyard-local",
    "trainyard": "client/trainyard",
}
# Made by prometheus-cpp and by Prometheus itself.
FOREIGN_METRICS = {"up"}


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def flags_of(program):
    """Flags that `--help` prints."""
    result = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=30)
    flags = re.findall(r"^\s+(?:-\w,)?(--[\w-]+)", result.stdout, re.MULTILINE)
    if result.returncode != 0 or "--help" not in flags:
        raise SystemExit("%s --help: exit code %d: %s" % (program, result.returncode, result.stdout + result.stderr))
    return set(flags)


def flag_problems(binaries):
    known = {name: flags_of(os.path.join(binaries, place)) for name, place in PROGRAMS.items()}
    for overlay in ("cpu", "gpu", "gpu-rdma", "jobset"):
        for owner, _, pod in rules.pods(kustomize.render(os.path.join(ROOT, "deploy", "kubernetes", overlay))):
            for container in pod["containers"]:
                program = os.path.basename(container["command"][0])
                for flag in rules.flags(container):
                    if flag not in known[program]:
                        yield "%s: %s: %s has no flag %s" % (overlay, rules.names(owner), program, flag)
    # Command lines in the documentation and in scripts: from a program's name to the end of its line.
    for path in ["docs/operations.md", "README.md", "deploy/local/cluster.sh"]:
        text = read(path).replace("\\\n", " ")
        for program in ("trainyard-coordinator", "trainyard-worker"):
            for line in re.findall(r"^.*%s .*$" % program, text, re.MULTILINE):
                for flag in re.findall(r"(?<![\w`-])--[a-z_]+\b", line.split(program, 1)[1].split("|")[0].split("`")[0]):
                    if flag not in known[program]:
                        yield "%s: %s has no flag %s" % (path, program, flag)


def port_problems():
    """One number for each port, wherever it is written."""
    coordinator = read("coordinator/main.cc") + read("coordinator/api/coordinator_server.h")
    for text in ("127.0.0.1:7070", "127.0.0.1:7071", "usually port 7072"):
        if text not in coordinator:
            yield "the coordinator's flags do not say %s, which deploy/ uses" % text
    for path in ("deploy/local/cluster.sh", "deploy/local/quickstart.sh", "docs/operations.md", "README.md"):
        if "7072" not in read(path):
            yield "%s does not name port 7072 of the web view" % path
    for path in ("deploy/docker/Dockerfile", "deploy/docker/Dockerfile.cuda"):
        exposed = {word for line in re.findall(r"^EXPOSE (.*)$", read(path), re.MULTILINE) for word in line.split()}
        if not exposed <= {"7070", "7071", "7072", "9465"}:
            yield "%s exposes %s" % (path, sorted(exposed))


def path_problems():
    """HTTP paths of probes and scrapes exist in the programs that serve them."""
    wanted = {"coordinator": set(), "worker": set()}
    for overlay in ("cpu", "gpu"):
        for _, labels, pod in rules.pods(kustomize.render(os.path.join(ROOT, "deploy", "kubernetes", overlay))):
            for container in pod["containers"]:
                for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                    wanted[rules.component(labels)].add(container[probe]["httpGet"]["path"])
    for part, folders in (("coordinator", ("coordinator", "base", "proto/rpc")), ("worker", ("worker/daemon", "base", "proto/rpc"))):
        sources = "".join(read(os.path.relpath(path, ROOT)) for folder in folders
                          for path in glob.glob(os.path.join(ROOT, folder, "**", "*.cc"), recursive=True)
                          if not path.endswith("_test.cc"))
        for path in sorted(wanted[part]):
            if '"%s"' % path not in sources:
                yield "%s: no source serves %s, which the probes ask for" % (part, path)
    images = read("deploy/docker/make_rootfs.sh")
    for overlay in ("cpu", "gpu"):
        for owner, _, pod in rules.pods(kustomize.render(os.path.join(ROOT, "deploy", "kubernetes", overlay))):
            for container in pod["containers"]:
                folder, program = os.path.split(container["command"][0])
                if folder != "/usr/local/bin" or PROGRAMS.get(program, "nothing") not in images:
                    yield "%s: %s: no image has %s" % (overlay, rules.names(owner), container["command"][0])
                for mount in container["volumeMounts"]:
                    if mount["mountPath"] not in ("/tmp", "/dev/shm") and mount["mountPath"].lstrip("/") not in images:
                        if mount["mountPath"] not in ("/shared/jobs", "/shared/data", "/etc/trainyard/tls"):
                            yield "%s: %s: images have no folder %s" % (overlay, rules.names(owner), mount["mountPath"])


def certificate_problems():
    """Secrets of the pods are those that cert-manager fills, and the coordinator's names are those that workers call."""
    certificates = {thing["spec"]["secretName"]: thing["spec"]
                    for thing in kustomize.render(os.path.join(ROOT, "deploy/kubernetes/certificates/cert-manager"))
                    if thing["kind"] == "Certificate"}
    for overlay in ("cpu", "gpu", "gpu-rdma", "jobset"):
        for owner, labels, pod in rules.pods(kustomize.render(os.path.join(ROOT, "deploy", "kubernetes", overlay))):
            for volume in pod["volumes"]:
                secret = volume.get("secret", {}).get("secretName")
                if secret is not None and secret not in certificates:
                    yield "%s: %s: no certificate fills %s" % (overlay, rules.names(owner), secret)
            for container in pod["containers"]:
                host = rules.flags(container).get("--coordinator", "").rsplit(":", 1)[0]
                if host and host not in certificates["trainyard-coordinator-tls"]["dnsNames"]:
                    yield "%s: %s calls %s, which is not in the coordinator's certificate" % (
                        overlay, rules.names(owner), host)


# ---- metrics ----

def served_metrics():
    """Names that the sources register. Histograms also give _bucket, _sum and _count."""
    names = set()
    coordinator = read("coordinator/api/coordinator_metrics.cc")
    for kind, name in re.findall(r'=\s+([GCH])\("(\w+)"', coordinator):
        names |= with_parts("trainyard_" + name, kind == "H")
    for path in glob.glob(os.path.join(ROOT, "coordinator", "**", "*.cc"), recursive=True) + [
            os.path.join(ROOT, "worker/daemon/metrics.cc")]:
        source = read(os.path.relpath(path, ROOT))
        for kind, name in re.findall(r'Build(Counter|Gauge|Histogram)\(\)\s*\.Name\("(\w+)"\)', source):
            names |= with_parts(name, kind == "Histogram")
        for name in re.findall(r'GaugeFamily\("(\w+)"', source):
            names.add("trainyard_" + name)
        for table in re.findall(r"k\w*Gauges\[\] = \{(.*?)\};", source, re.DOTALL):
            for name in re.findall(r'\{"\w+",\s*"(\w+)"', table):
                names.add("trainyard_" + name)
    return names


def with_parts(name, is_histogram):
    return {name + part for part in ("_bucket", "_sum", "_count")} if is_histogram else {name}


def used_expressions():
    """(place, expression) of every query in views, rules and monitors."""
    for board in yaml.safe_load(read("deploy/views/views.yaml"))["boards"]:
        for panel in board["panels"]:
            for query in panel["queries"]:
                yield "%s: %s" % (board["uid"], panel["title"]), query["expr"]
    for path in sorted(glob.glob(os.path.join(ROOT, "deploy/prometheus/rules/*.yml"))):
        for group in yaml.safe_load(read(os.path.relpath(path, ROOT)))["groups"]:
            for rule in group["rules"]:
                yield rule.get("record") or rule["alert"], rule["expr"]


def metric_problems():
    served = served_metrics()
    recorded = {rule["record"] for path in glob.glob(os.path.join(ROOT, "deploy/prometheus/rules/*.yml"))
                for group in yaml.safe_load(read(os.path.relpath(path, ROOT)))["groups"]
                for rule in group["rules"] if "record" in rule}
    used = set()
    for place, expression in used_expressions():
        bare = re.sub(r'"[^"]*"', '""', expression)
        for name in re.findall(r"[a-z_:]*trainyard_[a-z0-9_:]*", bare):
            used.add(name)
            if name not in served | recorded | FOREIGN_METRICS:
                yield "%s: nobody serves or records %s" % (place, name)
    for name in sorted(recorded - used):
        yield "the recording rule %s is not used" % name


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", default=os.path.join(ROOT, "bazel-bin"))
    binaries = parser.parse_args().bin
    found = list(flag_problems(binaries)) + list(port_problems()) + list(path_problems()) + list(metric_problems())
    found += list(certificate_problems())
    print("\n".join(found) or "flags, ports, paths and %d metrics agree" % len(served_metrics()))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
