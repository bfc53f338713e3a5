#!/usr/bin/python3
"""Renders every overlay and holds it against Kubernetes' schemas (oldest and newest version we name) and CP-74 to CP-78.

Then breaks the objects, one rule at a time, and fails if nobody notices.
"""
import copy
import os
import shutil
import subprocess
import sys

import yaml

import custom_kinds
import kustomize
import rules
import schemas

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
FOLDER = os.path.join(ROOT, "deploy", "kubernetes")
# base alone has no workers; the others are applied as they are.
OVERLAYS = ["cpu", "gpu", "gpu-rdma", "jobset", "monitoring", "certificates/cert-manager"]


def schema_problems(overlay, things, known):
    for thing in things:
        found = custom_kinds.problems(thing, known) if custom_kinds.knows(thing) else known.problems(thing)
        for problem in found:
            yield "%s: %s, Kubernetes %s: %s" % (overlay, rules.names(thing), known.version, problem)


def kubectl_problems(overlay, things):
    """Does the real Kustomize make the same? Only asked where a kubectl of this decade is installed."""
    result = subprocess.run(["kubectl", "kustomize", os.path.join(FOLDER, overlay)], capture_output=True, text=True)
    if result.returncode != 0:
        return ["%s: kubectl kustomize: %s" % (overlay, result.stderr.strip())]
    ours = {kustomize.identity(thing): thing for thing in things}
    theirs = {kustomize.identity(thing): thing for thing in yaml.safe_load_all(result.stdout)}
    return ["%s: %s %s: kubectl kustomize makes something else of it" % (overlay, one[1], one[2])
            for one in sorted(set(ours) | set(theirs)) if ours.get(one) != theirs.get(one)]


def has_kubectl():
    if shutil.which("kubectl") is None:
        return False
    version = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True).stdout
    return "Kustomize Version: v5" in version


# ---- the rules themselves: each of these changes must be noticed ----

def pod_of(things, kind, name):
    for owner, _, pod in rules.pods(things):
        if (owner["kind"], owner["metadata"]["name"]) == (kind, name):
            return pod
    raise KeyError((kind, name))


def thing_of(things, kind, name):
    return next(thing for thing in things if (thing["kind"], thing["metadata"]["name"]) == (kind, name))


def change_argument(pod, old, new):
    arguments = pod["containers"][0]["args"]
    index = next(i for i, argument in enumerate(arguments) if argument.startswith(old))
    arguments[index:index + 1] = [new] if new else []


COORDINATOR = ("StatefulSet", "trainyard-coordinator")
WORKER = ("StatefulSet", "trainyard-worker")
GPU_WORKER = ("DaemonSet", "trainyard-worker")
BREAKS = [
    ("cpu", "two coordinators", lambda t: thing_of(t, *COORDINATOR)["spec"].update(replicas=2)),
    ("cpu", "shared database", lambda t: thing_of(t, *COORDINATOR)["spec"]["volumeClaimTemplates"][0]["spec"].update(
        accessModes=["ReadWriteMany"])),
    ("cpu", "budget over the coordinator", lambda t: thing_of(t, "PodDisruptionBudget", "trainyard-worker")["spec"][
        "selector"].update(matchLabels={"app.kubernetes.io/component": "coordinator"})),
    ("cpu", "budget of nothing", lambda t: thing_of(t, "PodDisruptionBudget", "trainyard-worker")["spec"].update(
        maxUnavailable=0)),
    ("cpu", "rolling update", lambda t: thing_of(t, *WORKER)["spec"].update(updateStrategy={"type": "RollingUpdate"})),
    ("gpu", "rolling update", lambda t: thing_of(t, *GPU_WORKER)["spec"].update(updateStrategy={"type": "RollingUpdate"})),
    ("cpu", "no drain", lambda t: pod_of(t, *WORKER)["containers"][0].pop("lifecycle")),
    ("cpu", "short grace", lambda t: pod_of(t, *WORKER).update(terminationGracePeriodSeconds=60)),
    ("gpu", "no GPUs", lambda t: pod_of(t, *GPU_WORKER)["containers"][0]["resources"]["limits"].pop("nvidia.com/gpu")),
    ("gpu", "GPUs not offered", lambda t: change_argument(pod_of(t, *GPU_WORKER), "--gpus", "--gpus=none")),
    ("gpu", "small shm", lambda t: pod_of(t, *GPU_WORKER).update(
        volumes=[v for v in pod_of(t, *GPU_WORKER)["volumes"] if v["name"] != "shm"])),
    ("jobset", "not suspended", lambda t: thing_of(t, "JobSet", "trainyard-workers")["spec"].update(suspend=False)),
    ("jobset", "no queue", lambda t: thing_of(t, "JobSet", "trainyard-workers")["metadata"]["labels"].pop(
        "kueue.x-k8s.io/queue-name")),
    ("cpu", "ready addresses only", lambda t: thing_of(t, "Service", "trainyard-worker")["spec"].pop(
        "publishNotReadyAddresses")),
    ("cpu", "token", lambda t: pod_of(t, *WORKER).pop("automountServiceAccountToken")),
    ("cpu", "root", lambda t: pod_of(t, *WORKER)["securityContext"].update(runAsUser=0)),
    ("cpu", "seccomp", lambda t: pod_of(t, *COORDINATOR)["securityContext"].pop("seccompProfile")),
    ("cpu", "writable root", lambda t: pod_of(t, *COORDINATOR)["containers"][0]["securityContext"].update(
        readOnlyRootFilesystem=False)),
    ("cpu", "capabilities", lambda t: pod_of(t, *WORKER)["containers"][0]["securityContext"]["capabilities"].update(
        add=["SYS_PTRACE"])),
    ("gpu", "IPC_LOCK outside of RDMA", lambda t: pod_of(t, *GPU_WORKER)["containers"][0]["securityContext"][
        "capabilities"].update(add=["IPC_LOCK"])),
    ("cpu", "host network", lambda t: pod_of(t, *WORKER).update(hostNetwork=True)),
    ("gpu-rdma", "DNS", lambda t: pod_of(t, *GPU_WORKER).pop("dnsPolicy")),
    ("cpu", "no memory limit", lambda t: pod_of(t, *WORKER)["containers"][0]["resources"].pop("limits")),
    ("cpu", "hostPath", lambda t: pod_of(t, *WORKER)["volumes"].append({"name": "h", "hostPath": {"path": "/"}})),
    ("cpu", "latest", lambda t: pod_of(t, *WORKER)["containers"][0].update(image="trainyard-worker:latest")),
    ("cpu", "plaintext", lambda t: pod_of(t, *WORKER)["containers"][0]["args"].append("--insecure")),
    ("cpu", "no certificate", lambda t: change_argument(pod_of(t, *COORDINATOR), "--tls_cert", None)),
    ("cpu", "another's certificate", lambda t: next(v for v in pod_of(t, *WORKER)["volumes"] if v["name"] == "tls")[
        "secret"].update(secretName="trainyard-coordinator-tls")),
    ("cpu", "probe of the store", lambda t: pod_of(t, *COORDINATOR)["containers"][0]["livenessProbe"]["httpGet"].update(
        path="/readyz")),
    ("cpu", "probe of the TLS port", lambda t: pod_of(t, *COORDINATOR)["containers"][0]["readinessProbe"]["httpGet"].update(
        port="grpc")),
    ("cpu", "metrics on loopback", lambda t: change_argument(pod_of(t, *WORKER), "--metrics_listen",
                                                             "--metrics_listen=127.0.0.1:9465")),
    ("cpu", "web view on loopback", lambda t: change_argument(pod_of(t, *COORDINATOR), "--web_listen",
                                                              "--web_listen=127.0.0.1:7072")),
    ("cpu", "web view shut off", lambda t: t.remove(thing_of(t, "NetworkPolicy", "web"))),
    ("cpu", "no deny", lambda t: t.remove(thing_of(t, "NetworkPolicy", "default-deny"))),
    ("cpu", "policy without peers", lambda t: thing_of(t, "NetworkPolicy", "names")["spec"]["egress"][0].pop("to")),
    ("cpu", "workers shut out", lambda t: thing_of(t, "NetworkPolicy", "coordinator")["spec"]["ingress"][0]["from"].pop(0)),
    ("cpu", "wrong service", lambda t: change_argument(pod_of(t, *WORKER), "--coordinator", "--coordinator=other:7070")),
    ("cpu", "wrong port", lambda t: change_argument(pod_of(t, *WORKER), "--coordinator",
                                                    "--coordinator=trainyard-coordinator:7071")),
    ("cpu", "unknown variable", lambda t: change_argument(pod_of(t, *WORKER), "--cpu_slots", "--cpu_slots=$(SLOTS)")),
    ("cpu", "missing label", lambda t: thing_of(t, "Service", "trainyard-worker")["metadata"]["labels"].pop(
        "app.kubernetes.io/part-of")),
]


def main():
    found = []
    known = [schemas.Schemas(version) for version in schemas.VERSIONS]
    rendered = {overlay: kustomize.render(os.path.join(FOLDER, overlay)) for overlay in OVERLAYS}
    compares = has_kubectl()
    for overlay, things in rendered.items():
        for one in known:
            found += schema_problems(overlay, things, one)
        found += rules.problems(overlay, things)
        if compares:
            found += kubectl_problems(overlay, things)
    for overlay, what, change in BREAKS:
        things = copy.deepcopy(rendered[overlay])
        change(things)
        if not rules.problems(overlay, things):
            found.append("rules.py does not notice: %s, %s" % (overlay, what))
    objects = sum(len(things) for things in rendered.values())
    print("\n".join(found) or "%d objects of %d overlays hold; %d ways of breaking them are noticed; %s" % (
        objects, len(rendered), len(BREAKS),
        "kubectl kustomize makes the same" if compares else "no kubectl with Kustomize 5 here to compare with"))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
