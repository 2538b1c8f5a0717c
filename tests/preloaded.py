"""The installed commands without their start: each is forked from one process that has loaded PyTorch already.

A start of nnU-Net costs some ten seconds of a slow core, all but one of them in these imports, and the tests have hundreds.
Otherwise all is as it was: the entry point that is installed, in a process, folder, environment and process group of its own.
"""

from __future__ import annotations

import gc
import importlib
import json
import multiprocessing
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points
from multiprocessing.connection import wait
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORK = multiprocessing.get_context("fork")
HEAVY = (  # none is a part of nnU-Net, which reads its variables at import
    "torch._dynamo", "seaborn", "sklearn.isotonic", "skimage.morphology", "skimage.io", "scipy.stats", "scipy.ndimage",
    "batchgeneratorsv2", "dynamic_network_architectures.architectures.primus", "acvl_utils", "SimpleITK", "nibabel",
    "blosc2", "jinja2", "pydantic", "tqdm", "yaml",
)  # fmt: skip
NAMES = {
    it.name
    for it in entry_points(group="console_scripts")
    if it.name == "nnunet-dml" or it.name.startswith("nnUNetv2_")
}
RANKS = "two-ranks"
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({address!r})
    request = [os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd(), dict(os.environ), os.getpgrp()]
    socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
    sys.exit(server.recv(1)[0])
"""


def quick_commands() -> Path:
    """A folder to put in front of PATH, with all commands of nnU-Net and ours; it goes when this process ends."""
    return _started()[0]


def two_ranks(worker: Callable[..., object], *arguments: object) -> None:
    """`torch.multiprocessing.spawn` of two processes, likewise without their start."""
    call = pickle.dumps((worker, arguments)).hex()
    done = subprocess.run([quick_commands() / RANKS, call], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@cache
def _started() -> tuple[Path, subprocess.Popen[bytes]]:
    """The folder, and the process that serves its commands until its standard input ends."""
    folder = Path(tempfile.mkdtemp())  # a short name, as addresses must be
    for name in (*NAMES, RANKS):
        (folder / name).write_text(CLIENT.format(python=sys.executable, address=f"{folder}/address"))
        (folder / name).chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(f"{folder}/address")
        server.listen()
        command = [sys.executable, "-m", __name__, str(folder), str(server.fileno())]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        # only that process listens, so that nobody waits for it when it has died
        return folder, subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.PIPE, pass_fds=[server.fileno()]
        )


def serve(server: socket.socket) -> None:
    """Answer each request in a process of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in HEAVY:
            importlib.import_module(name)
    gc.freeze()  # what is loaded is shared by all
    vars(multiprocessing).update(
        get_context=lambda method=None: FORK,  # workers need not import all anew, either
        cpu_count=lambda: 1,  # nnU-Net's number of threads, which would not survive a fork
    )
    while wait([server, sys.stdin]) == [server]:
        connection, _ = server.accept()
        FORK.Process(target=answer, args=(server, connection)).start()
        connection.close()


def answer(server: socket.socket, connection: socket.socket) -> None:
    """Run the command that is asked for, and tell its status."""
    server.close()
    message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    process = FORK.Process(target=run, args=(*json.loads(message), streams))
    process.start()
    for stream in streams:
        os.close(stream)
    if connection in wait([process.sentinel, connection]):
        process.kill()  # as who asked was
    process.join()
    with suppress(BrokenPipeError):
        connection.send(bytes([(process.exitcode or 0) & 255]))


def run(
    name: str, arguments: list[str], folder: str, environment: dict[str, str], group: int, streams: list[int]
) -> None:
    """Become the command."""
    with suppress(PermissionError):  # another session's
        os.setpgid(
            0, group
        )  # what is sent to who asked and all of its children, such as `kill -9`, is sent to this, too
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if name.startswith("nnUNetv2_"):  # a training draws 16 million pixels each epoch
        sys.modules["matplotlib"].rcParams["savefig.dpi"] = 10
    sys.argv = [name, *arguments]
    if name == RANKS:
        worker, given = pickle.loads(bytes.fromhex(arguments[0]))
        sys.modules["torch"].multiprocessing.start_processes(worker, given, nprocs=2, start_method="fork")
        return
    (entry,) = entry_points(group="console_scripts", name=name)
    sys.exit(entry.load()())


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[2])))
    shutil.rmtree(sys.argv[1])
    os._exit(0)  # at once
