"""A Dask cluster of child processes on the loopback address, for tests that break it."""

import os
import re
import subprocess
import sys
import time

SILENT = {**os.environ, "DASK_DISTRIBUTED__ADMIN__LOG_FORMAT": "%(message)s"}


class Cluster:
    """A scheduler and workers, each a process of its own, on the loopback address."""

    def __init__(self, folder):
        self.folder = folder
        self.workers = []
        self.named = {}
        self.port = 0
        self.start_scheduler()

    def start_scheduler(self):
        command = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"]
        log = self.folder / f"scheduler-{time.monotonic_ns()}.log"
        self.scheduler = self._started(command, log)
        while not (found := re.search(r"tcp://127\.0\.0\.1:(\d+)", log.read_text())):
            assert self.scheduler.poll() is None, log.read_text()
            time.sleep(0.05)
        self.port = int(found[1])

    def start_workers(self, count, *options):
        for _ in range(count):
            name = f"worker-{time.monotonic_ns()}"
            command = ["distributed.cli.dask_worker", self.address, "--nthreads", "1", "--no-dashboard", "--name", name]
            places = ["--local-directory", str(self.folder), "--no-nanny", *options]
            self.named[name] = self._started([*command, *places], self.folder / f"{name}.log")
            self.workers.append(self.named[name])
        return self

    def kill(self, name):
        """Kill the worker of a name, as the scheduler has it."""
        self.named[name].kill()

    def _started(self, module, log):
        with log.open("wb") as stream:
            return subprocess.Popen([sys.executable, "-m", *module], stdout=stream, stderr=stream, env=SILENT)

    @property
    def address(self):
        return f"tcp://127.0.0.1:{self.port}"

    def close(self):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()
