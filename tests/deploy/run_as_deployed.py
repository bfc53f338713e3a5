#!/usr/bin/python3
"""Starts the pods of the overlay `cpu` as its manifests say, without Kubernetes and without a container engine, and runs a
job through the names of their services.

  tests/deploy/run_as_deployed.py --bin DIR [--keep DIR]   # DIR of --bin is laid out like bazel-bin; needs root

Taken from the rendered manifests: commands, arguments, environment, mounts, users, read-only roots, ports of the probes,
the preStop hook, the number of replicas. Images are made by deploy/docker/make_rootfs.sh. Each pod has namespaces of its own
(network, mounts, processes, host name) and an address of its own; names of services stand in /etc/hosts. Not taken over:
limits of CPU and memory, seccomp, NetworkPolicies, storage classes.
"""
import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import check_names
import kustomize
import rules

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
HERE = os.path.join(ROOT, "tests", "deploy")
SUBNET = "10.231.47."
JOB = """
name: deployed
world: {min: 2, slot_type: cpu, threads_per_rank: 1}
seed: 7
pretrain: {}
model:
  shape: {vocab_size: 512, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4,
          num_key_value_heads: 2}
data: {path: data/tiny, sequence_length: 64}
training:
  steps: %d
  micro_batch: 4
  optimizer: {adamw: {learning_rate: 3.0e-3}}
  schedule: {shape: cosine, warmup_steps: 5}
checkpoint: {interval_steps: 20, keep_last: 2}
retry: {backoff_initial: 1s, backoff_maximum: 2s}
"""
CERTIFICATES = {"coordinator": "trainyard-coordinator-tls", "worker": "trainyard-worker-tls", "client": "trainyard-client-tls"}


class Failure(Exception):
    pass


def run(*command, check=True, timeout=600):
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if check and result.returncode != 0:
        raise Failure("%s: exit code %d\n%s%s" % (" ".join(command), result.returncode, result.stdout, result.stderr))
    return result


def until(sentence, question, seconds=180.0):
    """Asks until the answer is true; fails with the sentence."""
    end = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > end:
            raise Failure("not within %g s: %s" % (seconds, sentence))
        time.sleep(0.05)


class Pod:
    def __init__(self, name, labels, spec, container, owner):
        self.name, self.labels, self.spec, self.container, self.owner = name, labels, spec, container, owner
        self.part = rules.component(labels)
        self.process = self.address = None
        self.net = "ty-%s" % name.replace("trainyard-", "")[:11]


class Cluster:
    def __init__(self, folder, binaries, plaintext):
        self.folder, self.binaries, self.plaintext = folder, binaries, plaintext
        self.things = kustomize.render(os.path.join(ROOT, "deploy", "kubernetes", "cpu"))
        self.config = {one["metadata"]["name"]: one["data"] for one in self.things if one["kind"] == "ConfigMap"}
        self.pods = []
        for owner, labels, spec in rules.pods(self.things):
            for index in range(owner["spec"]["replicas"]):
                self.pods.append(Pod("%s-%d" % (owner["metadata"]["name"], index), labels, spec, spec["containers"][0], owner))
        # The user's pod: image of the client, labels that the policies ask for, the data claim to write to.
        self.client = Pod("trainyard-client-0", {}, None, None, None)
        self.fabric = "ty-fabric"
        self.notes = []

    # ---- images, addresses, volumes ----

    def make_images(self):
        for role in ("coordinator", "worker", "client"):
            image = os.path.join(self.folder, "images", role)
            began = time.monotonic()
            run(os.path.join(ROOT, "deploy", "docker", "make_rootfs.sh"), role, self.binaries, image)
            took = time.monotonic() - began
            size = int(run("du", "-sb", image).stdout.split()[0])
            print("  image %-12s %6.1f MB, made in %.1f s" % (role, size / 1e6, took))

    def make_network(self):
        run("ip", "netns", "add", self.fabric)
        run("ip", "-n", self.fabric, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.fabric, "addr", "add", SUBNET + "1/24", "dev", "br0")
        run("ip", "-n", self.fabric, "link", "set", "br0", "up")
        run("ip", "-n", self.fabric, "link", "set", "lo", "up")
        for number, pod in enumerate(self.pods + [self.client], 2):
            pod.address = SUBNET + str(number)
            outside = "v%d" % number
            run("ip", "netns", "add", pod.net)
            run("ip", "-n", self.fabric, "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", pod.net)
            run("ip", "-n", self.fabric, "link", "set", outside, "master", "br0", "up")
            run("ip", "-n", pod.net, "addr", "add", pod.address + "/24", "dev", "eth0")
            run("ip", "-n", pod.net, "link", "set", "eth0", "up")
        lines = ["127.0.0.1 localhost"]
        for service in [thing for thing in self.things if thing["kind"] == "Service"]:
            for pod in self.pods:
                if rules.selects(service["spec"]["selector"], pod.labels):
                    name = service["metadata"]["name"]
                    lines.append("%s %s %s.trainyard.svc" % (pod.address, name, name))
                    if service["spec"].get("clusterIP") == "None":
                        lines.append("%s %s.%s" % (pod.address, pod.name, name))
        with open(os.path.join(self.folder, "hosts"), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        # There is no DNS server here; programs that ask one for an IPv6 address shall not wait long for no answer.
        with open(os.path.join(self.folder, "resolv.conf"), "w", encoding="utf-8") as file:
            file.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")

    def remove_network(self):
        for pod in self.pods + [self.client]:
            run("ip", "netns", "del", pod.net, check=False)
        run("ip", "netns", "del", self.fabric, check=False)

    def volume(self, pod, name):
        """Source of a volume, owned as kubelet would make it."""
        for claim in pod.owner["spec"].get("volumeClaimTemplates", []):
            if claim["metadata"]["name"] == name:
                return self.claim("%s-%s" % (name, pod.name), pod.spec)
        [volume] = [one for one in pod.spec["volumes"] if one["name"] == name]
        if "persistentVolumeClaim" in volume:
            return self.claim(volume["persistentVolumeClaim"]["claimName"], pod.spec)
        if "secret" in volume:
            return os.path.join(self.folder, "secrets", volume["secret"]["secretName"])
        return None   # emptyDir

    def claim(self, name, spec):
        path = os.path.join(self.folder, "claims", name)
        if not os.path.isdir(path):
            os.makedirs(path)
            os.chown(path, 0, spec["securityContext"]["fsGroup"])
            os.chmod(path, 0o2770)
        return path

    # ---- certificates ----

    def make_certificates(self):
        secrets = os.path.join(self.folder, "secrets")
        made = os.path.join(self.folder, "certificates")
        if not self.plaintext:
            run(os.path.join(self.binaries, check_names.PROGRAMS["trainyard"]), "certs", "init", "--dir", made)
        for part, secret in CERTIFICATES.items():
            folder = os.path.join(secrets, secret)
            os.makedirs(folder)
            if self.plaintext:
                continue
            for name in ("tls.crt", "tls.key", "ca.crt"):
                # Group and mode as kubelet gives them: fsGroup, defaultMode.
                target = os.path.join(folder, name)
                shutil.copyfile(os.path.join(made, part, name), target)
                os.chown(target, 0, 65532)
                os.chmod(target, 0o440)

    def arguments(self, given):
        if not self.plaintext:
            return given
        kept = [argument for argument in given if not argument.startswith("--tls_")]
        return kept + ["--insecure"]

    # ---- pods ----

    def describe(self, pod):
        container = pod.container
        environment = {"PATH": "/usr/local/bin:/bin", "HOME": "/tmp"}   # as the images set it
        for source in container.get("envFrom", []):
            environment.update(self.config[source["configMapRef"]["name"]])
        for variable in container.get("env", []):
            environment[variable["name"]] = {"status.podIP": pod.address, "spec.nodeName": "node-of-" + pod.name}[
                variable["valueFrom"]["fieldRef"]["fieldPath"]]
        arguments = [re.sub(r"\$\((\w+)\)", lambda match: environment[match.group(1)], one)
                     for one in self.arguments(container["args"])]
        mounts = []
        for mount in container["volumeMounts"]:
            source = self.volume(pod, mount["name"])
            mounts.append({"path": mount["mountPath"], "source": source, "tmpfs": None if source else "size=256m",
                           "read_only": mount.get("readOnly", False)})
        context = pod.spec["securityContext"]
        return {"name": pod.name, "root": os.path.join(self.folder, "images", pod.part), "mounts": mounts,
                "names": self.folder, "command": container["command"] + arguments,
                "read_only_root": container["securityContext"]["readOnlyRootFilesystem"], "environment": environment,
                "user": context["runAsUser"], "group": context["runAsGroup"], "fs_group": context["fsGroup"]}

    def spawn(self, pod, description, **files):
        path = os.path.join(self.folder, pod.name + ".json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(description, file)
        return subprocess.Popen(["ip", "netns", "exec", pod.net, "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork",
                                 "--kill-child", sys.executable, os.path.join(HERE, "pod_init.py"), path], **files)

    def start(self, pod):
        log = open(os.path.join(self.folder, pod.name + ".log"), "ab")
        pod.process = self.spawn(pod, self.describe(pod), stdout=log, stderr=log)

    def inside(self, pod):
        """Process id, seen from here, of the pod's process 1."""
        def find():
            children = "/proc/%d/task/%d/children" % (pod.process.pid, pod.process.pid)
            found = [int(word) for word in open(children, encoding="ascii").read().split()]
            return found[0] if found else None
        return until("%s has a process" % pod.name, find)

    def probe(self, pod, which):
        """Does the probe succeed? kubelet asks from the node, here the fabric."""
        probe = pod.container[which]["httpGet"]
        port = {one["name"]: one["containerPort"] for one in pod.container["ports"]}[probe["port"]]
        url = "http://%s:%d%s" % (pod.address, port, probe["path"])
        if pod.process.poll() is not None:
            raise Failure("%s ended with %d" % (pod.name, pod.process.returncode))
        script = ("import sys, urllib.error, urllib.request\n"
                  "try: print(urllib.request.urlopen(sys.argv[1], timeout=5).status)\n"
                  "except urllib.error.HTTPError as error: print(error.code)\n"
                  "except OSError: print(0)\n")
        status = int(run("ip", "netns", "exec", self.fabric, sys.executable, "-c", script, url).stdout)
        if status == 404:   # served by no program yet: that metrics are answered has to do
            note = "NOT YET: %s has no %s" % (pod.part, probe["path"])
            if note not in self.notes:
                self.notes.append(note)
                print("  " + note)
            return True
        return status == 200

    def stop(self, pod):
        """What kubelet does: the preStop hook inside the container, then SIGTERM, then SIGKILL. Returns the seconds."""
        began = time.monotonic()
        pid = self.inside(pod)
        hook = pod.container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        if hook:
            run("nsenter", "--target", str(pid), "--all", "--root", "--wd", "--setuid", "65532", "--setgid", "65532", *hook,
                check=False, timeout=pod.spec["terminationGracePeriodSeconds"])
        if pod.process.poll() is None and os.path.exists("/proc/%d" % pid):
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        pod.process.wait(timeout=pod.spec["terminationGracePeriodSeconds"])
        return time.monotonic() - began

    def end_all(self):
        for pod in reversed(self.pods):
            if pod.process is not None and pod.process.poll() is None:
                pod.process.kill()
                pod.process.wait()

    # ---- the user ----

    def trainyard(self, *arguments, check=True, stdin=None, program="trainyard"):
        spec = self.pods[0].spec
        command = ["/usr/local/bin/" + program]
        if program == "trainyard":
            command += ["--address", "trainyard-coordinator:7070"] + self.client_certificates()
        description = {"name": self.client.name, "root": os.path.join(self.folder, "images", "client"),
                       "mounts": [{"path": "/shared/data", "source": self.claim("trainyard-data", spec), "read_only": False},
                                  {"path": "/shared/jobs", "source": self.claim("trainyard-jobs", spec), "read_only": True},
                                  {"path": "/etc/trainyard/tls", "read_only": True,
                                   "source": os.path.join(self.folder, "secrets", CERTIFICATES["client"])},
                                  {"path": "/tmp", "source": None, "tmpfs": "size=64m", "read_only": False}],
                       "names": self.folder, "command": command + list(arguments),
                       "read_only_root": True, "environment": {"HOME": "/tmp", "PATH": "/usr/local/bin:/bin"},
                       "user": 65532, "group": 65532, "fs_group": 65532}
        process = self.spawn(self.client, description, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        out, err = process.communicate(stdin, timeout=400)
        if check and process.returncode != 0:
            raise Failure("trainyard %s: exit code %d\n%s%s" % (" ".join(arguments), process.returncode, out, err))
        return out

    def client_certificates(self):
        if self.plaintext:
            return ["--insecure"]
        return ["--tls_cert", "/etc/trainyard/tls/tls.crt", "--tls_key", "/etc/trainyard/tls/tls.key", "--tls_ca",
                "/etc/trainyard/tls/ca.crt"]


def scenario(cluster):
    cluster.make_images()
    cluster.make_network()
    cluster.make_certificates()
    coordinator, workers = cluster.pods[0], cluster.pods[1:]
    if coordinator.part != "coordinator" or len(workers) < 2:
        raise Failure("expected a coordinator and two workers, got %s" % [pod.name for pod in cluster.pods])

    def ready(pod):
        return cluster.probe(pod, "readinessProbe")

    began = time.monotonic()
    cluster.start(coordinator)
    until("the coordinator is ready", lambda: ready(coordinator))
    print("  coordinator ready after %.2f s" % (time.monotonic() - began))
    began = time.monotonic()
    for worker in workers:
        cluster.start(worker)
    for worker in workers:
        until("%s is ready" % worker.name, lambda: ready(worker))
    until("the coordinator counts two workers", lambda: cluster.trainyard("workers", "-o", "jsonl").count(
        "WORKER_STATE_READY") == len(workers))
    print("  %d workers registered after %.2f s" % (len(workers), time.monotonic() - began))

    text = "".join("the quick brown fox %d jumps over the lazy dog %d\n" % (i, i * i % 97) for i in range(4000))
    source = os.path.join(cluster.claim("trainyard-data", coordinator.spec), "text.txt")
    with open(source, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(source, 0o644)
    cluster.trainyard("data", "tokenize", "--input", "/shared/data/text.txt", "--output", "/shared/data/tiny", "--tokenizer",
                      "bytes", "--validation_fraction", "0.05", program="trainyard-local")

    def submit(steps):
        return cluster.trainyard("--quiet", "submit", "-f", "-", stdin=JOB % steps).strip()

    def job(uid):
        return json.loads(cluster.trainyard("get", uid, "-o", "json"))

    began = time.monotonic()
    uid = submit(200)
    cluster.trainyard("wait", uid, "--timeout", "300s")
    if job(uid)["state"] != "JOB_STATE_SUCCEEDED":
        raise Failure("the job ended as %s\n%s" % (job(uid)["state"], cluster.trainyard("get", uid)))
    print("  a job of two ranks in two pods succeeded in %.1f s" % (time.monotonic() - began))

    def step(uid):
        return int(job(uid).get("progress", {}).get("step", 0))

    # A worker that is deleted drains: the job stops with a checkpoint and goes on when the pod is back, as the same worker.
    uid = submit(100000)
    until("the job trains", lambda: step(uid) > 100)
    before = cluster.trainyard("workers", "-o", "jsonl")
    took = cluster.stop(workers[1])
    log = open(os.path.join(cluster.folder, workers[1].name + ".log"), encoding="utf-8").read()
    if "drained; leaving" not in log or workers[1].process.returncode != 0:
        raise Failure("the preStop hook did not drain %s (exit code %s):\n%s" % (
            workers[1].name, workers[1].process.returncode, log[-2000:]))
    if "without a checkpoint" in log:
        raise Failure("the drain was cut short by a second SIGTERM:\n" + log[-2000:])
    print("  preStop drained a worker with a running rank in %.1f s" % took)
    until("the job left RUNNING", lambda: job(uid)["state"] != "JOB_STATE_RUNNING")
    stopped = job(uid)
    committed = int(stopped.get("committedStep", 0))
    if committed < 100 or committed != int(stopped["progress"]["step"]):
        raise Failure("the drain left step %s with checkpoint %d" % (stopped["progress"]["step"], committed))
    cluster.start(workers[1])
    until("the job runs again", lambda: job(uid)["state"] == "JOB_STATE_RUNNING")
    until("the job goes on from its checkpoint", lambda: step(uid) > committed)
    after = cluster.trainyard("workers", "-o", "jsonl")
    if len(after.splitlines()) != len(before.splitlines()):
        raise Failure("the pod came back as another worker:\n%s\n%s" % (before, after))
    cluster.trainyard("cancel", uid)
    cluster.trainyard("wait", uid, "--timeout", "60s", check=False)
    for pod in reversed(cluster.pods):
        took = cluster.stop(pod)
        if pod.process.returncode != 0:
            raise Failure("%s ended with %d" % (pod.name, pod.process.returncode))
    print("  all pods stopped by themselves; the coordinator took %.1f s" % took)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(ROOT, "bazel-bin"))
    parser.add_argument("--keep", help="work in this folder and leave it")
    arguments = parser.parse_args()
    if os.geteuid() != 0 or not all(shutil.which(one) for one in ("ip", "unshare", "nsenter")):
        print("SKIPPED: needs root, ip, unshare and nsenter")
        return 0
    folder = arguments.keep or tempfile.mkdtemp(prefix="trainyard-deployed-")
    os.makedirs(folder, exist_ok=True)
    os.chmod(folder, 0o755)
    has_tls = all("--tls_cert" in check_names.flags_of(os.path.join(arguments.bin, check_names.PROGRAMS[program]))
                  for program in ("trainyard-coordinator", "trainyard-worker", "trainyard"))
    if not has_tls:
        print("  NOT YET: the programs have no --tls_cert; the pods speak plaintext")
    cluster = Cluster(folder, arguments.bin, plaintext=not has_tls)
    try:
        scenario(cluster)
        return 0
    except (Failure, subprocess.TimeoutExpired) as failure:
        print("FAILED:", failure)
        for pod in cluster.pods:
            path = os.path.join(folder, pod.name + ".log")
            if os.path.exists(path):
                print("--- %s\n%s" % (path, open(path, encoding="utf-8", errors="replace").read()[-3000:]))
        return 1
    finally:
        cluster.end_all()
        cluster.remove_network()
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
