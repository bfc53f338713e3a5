"""A small live cluster for the checks that are written in Python: deploy/local/cluster.sh on free ports, in a folder of the
check's own, a data set, and small jobs over it."""
import os
import resource
import socket
import subprocess
import time

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
# For `training` and `more` of job_spec.
QUEST = "  linear: {quest: {hadamard_dim: 64}}\n"
CODEC = """communication:
  exchange: sra
  codec: {maxmin: {bits: 4, bucket_size: 512}}
  types: {embedding: {codec: {maxmin: {bits: 8, bucket_size: 512}}}, mlp: {codec: {maxmin: {bits: 3, bucket_size: 512}}}}
  phase2_bits: 8
"""


def job_spec(name, steps, ranks=1, kind="pretrain", training="", more="", data="data", checkpoint_steps=50):
    """YAML of a job that trains a model of a few thousand parameters on the data of `tokenize`. `training`: lines of that
    section, indented; `more`: lines of the job itself."""
    return """
name: %s
world: {min: %d, slot_type: cpu, threads_per_rank: 1}
seed: 7
%s: {}
model:
  shape: {vocab_size: 512, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4,
          num_key_value_heads: 2}
data: {path: %s, sequence_length: 64}
training:
  steps: %d
  micro_batch: 2
  optimizer: {adamw: {learning_rate: 3.0e-3}}
  schedule: {shape: cosine, warmup_steps: 5}
  evaluation: {interval_steps: 20, batches: 1}
%scheckpoint: {interval_steps: %d, keep_last: 2}
%s""" % (name, ranks, kind, data, steps, training, checkpoint_steps, more)


def free_ports(count):
    """The first of `count` ports in a row that nobody has; somebody may take them before they are used."""
    for _ in range(100):
        sockets = []
        try:
            for i in range(count):
                one = socket.socket()
                sockets.append(one)
                one.bind(("127.0.0.1", sockets[0].getsockname()[1] + i if i else 0))
            return sockets[0].getsockname()[1]
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise SystemExit("no %d free ports in a row" % count)


def limits_of_a_shell():
    """Of open files, for a child: what most shells and services give, whatever this process has."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, max(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))


class Programs:
    """Calls the programs as a user of one coordinator does. `binaries` is laid out like bazel-bin."""

    def __init__(self, binaries, address, **environment):
        self.binaries, self.address = binaries, address
        self.environment = dict(os.environ, TRAINYARD_BIN=binaries, TRAINYARD_ADDRESS=address, **environment)

    def client(self, *command, stdin=None):
        """What `trainyard COMMAND` prints; an error ends the check."""
        done = subprocess.run([os.path.join(self.binaries, "client/trainyard"), *command], env=self.environment, input=stdin,
                              capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise SystemExit("trainyard %s: exit %d: %s" % (" ".join(command), done.returncode, done.stderr))
        return done.stdout.strip()

    def submit(self, spec):
        """The uid of the job, one a line if there are several."""
        return self.client("--quiet", "submit", "-f", "-", stdin=spec)


class LocalCoordinator(Programs):
    """A coordinator alone, without workers; `with` ends it. `certificates` is a folder of `trainyard certs init`: then it
    serves by mutual TLS only, and `client` shows the certificate of clients."""

    def __init__(self, binaries, folder, certificates=None):
        flags, environment, scheme = [], {}, "http"
        if certificates:
            scheme = "https"
            for name, file in (("cert", "tls.crt"), ("key", "tls.key"), ("ca", "ca.crt")):
                flags.append("--tls_%s=%s" % (name, os.path.join(certificates, "coordinator", file)))
                environment["TRAINYARD_TLS_" + name.upper()] = os.path.join(certificates, "client", file)
        ports = os.path.join(folder, "ports")
        self.log_path = os.path.join(folder, "coordinator.log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [os.path.join(binaries, "coordinator/trainyard-coordinator"), "--listen=127.0.0.1:0", "--metrics_listen=",
                 "--web_listen=127.0.0.1:0", "--data_dir=" + os.path.join(folder, "data"), "--port_file=" + ports] + flags,
                stdout=log, stderr=log, preexec_fn=limits_of_a_shell)
        for _ in range(600):
            if os.path.exists(ports):
                break
            if self.process.poll() is not None:
                raise SystemExit("the coordinator ended: " + open(self.log_path, encoding="utf-8").read())
            time.sleep(0.05)
        else:
            self.process.kill()
            raise SystemExit("the coordinator did not start within 30 s")
        bound = dict(line.split() for line in open(ports, encoding="ascii") if len(line.split()) == 2)
        super().__init__(binaries, bound["grpc"], **environment)
        # By the name that its certificate is for.
        self.web = "%s://localhost:%s" % (scheme, bound["web"].rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


class LocalCluster(Programs):
    """A coordinator and two workers with two slots each; everything written is below `folder`."""

    WORKERS = 2

    def __init__(self, binaries, folder):
        first = free_ports(3 + self.WORKERS)
        super().__init__(binaries, "127.0.0.1:%d" % first)
        self.folder, self.web = folder, "http://127.0.0.1:%d" % (first + 1)
        # host:port of /metrics: the coordinator's, and those of the workers
        self.metrics = "127.0.0.1:%d" % (first + 2)
        self.worker_metrics = ["127.0.0.1:%d" % (first + 3 + i) for i in range(self.WORKERS)]
        self.script = [os.path.join(ROOT, "deploy/local/cluster.sh")]
        self.options = ["--dir", os.path.join(folder, "cluster"), "--address", self.address, "--web_port", str(first + 1),
                        "--metrics_port", str(first + 2), "--workers", str(self.WORKERS), "--slots", "2"]

    def start(self):
        """What runs already is left alone."""
        subprocess.run(self.script + ["start"] + self.options, env=self.environment, check=True, stdout=subprocess.DEVNULL)

    def stop(self):
        subprocess.run(self.script + ["stop"] + self.options, env=self.environment, stdout=subprocess.DEVNULL)

    def end_coordinator(self):
        with open(os.path.join(self.folder, "cluster", "coordinator.pid"), encoding="ascii") as file:
            pid = int(file.read())
        os.kill(pid, 15)
        while os.path.exists("/proc/%d" % pid) and open("/proc/%d/stat" % pid, encoding="ascii").read().split()[2] != "Z":
            time.sleep(0.05)

    def tokenize(self):
        """The data set that specs call `data`."""
        text = os.path.join(self.folder, "text.txt")
        with open(text, "w", encoding="utf-8") as file:
            file.write("".join("line %d of a text, %d\n" % (i, i * i % 91) for i in range(4000)))
        subprocess.run([os.path.join(self.binaries, "worker/tools/trainyard-local"), "data", "tokenize", "--input", text,
                        "--output", os.path.join(self.folder, "cluster", "data"), "--tokenizer", "bytes",
                        "--validation_fraction", "0.05"], check=True, stdout=subprocess.DEVNULL)
