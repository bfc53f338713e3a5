"""A coordinator and worker daemons, each on a host of its own of a Network."""
import json
import os
import pathlib
import signal
import subprocess
import time

PORT = 7070


class Cluster:
    """The coordinator is host 1, worker i (0-based) is host i + 2."""

    def __init__(self, network, workers, programs, folder):
        self.network = network
        self.programs = pathlib.Path(programs)
        self.folder = pathlib.Path(folder)
        self.address = f"{network.address(1)}:{PORT}"
        self.processes = []
        (self.folder / "jobs").mkdir(parents=True, exist_ok=True)
        try:
            self._start(1, "coordinator", "coordinator/trainyard-coordinator", "--listen", self.address, "--data_dir",
                        self._made("coordinator"), "--metrics_listen", "", "--insecure")
            for worker in range(workers):
                self._start(worker + 2, f"worker-{worker}", "worker/daemon/trainyard-worker", "--coordinator",
                            self.address, "--state_dir", self._made(f"worker-{worker}"), "--job_root",
                            str(self.folder / "jobs"), "--data_root", str(self.folder), "--cpu_slots", "1",
                            "--metrics_listen", "", "--insecure")
            self._wait(lambda: self.trainyard("workers", "-o", "jsonl").count("WORKER_STATE_READY") >= workers, 60,
                       "the workers to be ready")
        except Exception:
            self.close()
            raise

    def _made(self, name):
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return str(path)

    def _start(self, host, name, program, *arguments):
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes.append(subprocess.Popen(
                [*self.network.enter(host), str(self.programs / program), *arguments], stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True))

    def _wait(self, condition, seconds, what):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if condition():
                    return
            except subprocess.CalledProcessError:
                pass
            time.sleep(1)
        raise TimeoutError(f"waited {seconds} s for {what}; logs are in {self.folder}")

    def trainyard(self, *arguments):
        result = subprocess.run([*self.network.enter(1), str(self.programs / "client/trainyard"), "--insecure", *arguments],
                                capture_output=True, text=True,
                                env={**os.environ, "TRAINYARD_ADDRESS": self.address})
        if result.returncode != 0:
            raise subprocess.CalledProcessError(result.returncode, result.args, result.stdout, result.stderr)
        return result.stdout

    def train(self, spec, timeout=1200):
        """Runs a job to its end. Returns its record and its metrics: a list of {step, values}."""
        path = self.folder / "job.yaml"
        path.write_text(json.dumps(spec))  # JSON is YAML
        try:
            job = self.trainyard("submit", "-f", str(path), "--quiet").strip()
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"refused: {error.stderr}") from None
        ended = ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")
        self._wait(lambda: self.get(job)["state"] in ended, timeout, f"job {job}")
        record = self.get(job)
        if record["state"] != ended[0]:
            raise SystemExit(f"job {job}: {record['state']}: {json.dumps(record.get('exit', {}))[:2000]}")
        points = json.loads(self.trainyard("metrics", job, "-o", "json"))["points"]
        return record, [{"step": int(p["step"]), **p["values"]} for p in points]

    def get(self, job):
        return json.loads(self.trainyard("get", job, "-o", "json"))

    def close(self):
        for process in reversed(self.processes):  # the workers first
            process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes):
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        self.processes = []
