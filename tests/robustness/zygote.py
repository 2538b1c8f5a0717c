"""A process that has imported everything and does nothing but fork: each child is a command, started at once.

So commands can be killed at any moment of their work, not of their imports, and thirty kills cost seconds. The children
share no thread with anything: none was ever started in their parent.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass

from tests.conftest import ROOT

_CHILD = """
import json, multiprocessing, os, resource, signal, sys
fork = multiprocessing.get_context("fork")
multiprocessing.get_context = lambda method=None: fork  # worker processes, too, begin at once
import hashlib, matplotlib.pyplot, nibabel, pandas, scipy.ndimage, SimpleITK, skimage.io, sklearn.isotonic, torch
import nnunetv2.training.nnUNetTrainer.nnUNetTrainer, nnunetv2.preprocessing.resampling.default_resampling
import nnunet_dml.benchmark.runner, nnunet_dml.benchmark.checks, nnunet_dml.benchmark.data
import nnunet_dml.evaluation.run, nnunet_dml.evaluation.calibrated.apply, nnunet_dml.nnunet.convert
import nnunet_dml.nnunet.preprocess, nnunet_dml.nnunet.layouts.kits, nnunet_dml.nnunet.layouts.lidc, nnunet_dml.nnunet.layouts.lits
from nnunet_dml.cli.main import main
pipes = {}
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    if "wait" in job:
        with os.fdopen(pipes.pop(job["wait"]), errors="replace") as stream:
            said = stream.read()
        status = os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1])
        print(json.dumps([status, said]), flush=True)
        continue
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.chdir(job["folder"])
        os.environ.update(job["environment"])
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0), os.dup2(null, 1), os.dup2(write, 2)
        os.close(write), os.close(read)
        if job["limit"] is not None:  # a full disk
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], job["limit"]))
        try:
            status = main(job["arguments"])
        except SystemExit as error:
            status = error.code
        except BaseException:
            import traceback
            traceback.print_exc()
            status = 1
        sys.stderr.flush()
        os._exit(status)
    try:
        os.setpgid(pid, pid)
    except PermissionError:
        pass
    os.close(write)
    pipes[pid] = read
    print(pid, flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """A command that is over."""

    status: int
    """Negative: the signal that killed it."""
    said: str
    """On standard error."""


class Zygote:
    """Starts commands."""

    def __init__(self) -> None:
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MPLBACKEND": "agg",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd=ROOT,
        )
        assert self._line() == "ready\n"

    def start(self, arguments, folder, *, limit: int | None = None) -> int:
        """Start a command with nnU-Net's variables of this process; its pid, which is its process group's."""
        environment = {
            k: v
            for k, v in os.environ.items()
            if k.startswith("nnUNet_") or k in ("PATH", "CALLS", "BROKEN", "SLOW")
        }
        self._send(
            {"arguments": list(arguments), "folder": str(folder), "environment": environment, "limit": limit}
        )
        return int(self._line())

    def wait(self, pid: int) -> Ended:
        """Wait for a command."""
        self._send({"wait": pid})
        return Ended(*json.loads(self._line()))

    def run(self, arguments, folder, **options) -> Ended:
        """Start and wait."""
        return self.wait(self.start(arguments, folder, **options))

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _send(self, job) -> None:
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()

    def _line(self) -> str:
        return self._process.stdout.readline()


def kill(pid: int) -> None:
    """`kill -9` of a process group."""
    os.killpg(pid, signal.SIGKILL)
