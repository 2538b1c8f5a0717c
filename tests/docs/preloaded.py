"""The installed commands without their start: each is forked from one process that has loaded PyTorch already.

A start of nnU-Net costs some ten seconds of a slow core, all but one of them in these imports, and the pages have a hundred.
Otherwise all is as it was: the entry point that is installed, in a process, folder and environment of its own.
"""

from __future__ import annotations

import gc
import importlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path

from tests.conftest import ROOT

FORK = multiprocessing.get_context("fork")
HEAVY = ("torch._dynamo", "seaborn", "skimage.morphology", "scipy.stats", "batchgeneratorsv2", "SimpleITK")
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({address!r})
    request = [os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd(), dict(os.environ)]
    socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
    sys.exit(server.recv(1)[0])
"""


@contextmanager
def quick_commands() -> Iterator[Path]:
    """A folder to put in front of PATH, with all commands of nnU-Net and ours."""
    with tempfile.TemporaryDirectory() as name:  # a short one, as addresses must be
        folder, address = Path(name), f"{name}/address"
        for entry in entry_points(group="console_scripts"):
            if entry.name == "nnunet-dml" or entry.name.startswith("nnUNetv2_"):
                client = folder / entry.name
                client.write_text(CLIENT.format(python=sys.executable, address=address))
                client.chmod(0o755)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
            server.bind(address)
            server.listen()
            command = [sys.executable, "-m", __name__, str(server.fileno())]
            env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            with subprocess.Popen(command, cwd=ROOT, env=env, pass_fds=[server.fileno()]) as process:
                server.close()  # so that nobody waits for a process that has died
                try:
                    yield folder
                finally:
                    process.terminate()


def serve(server: socket.socket) -> None:
    """Answer each request in a process of its own, for ever."""
    for name in HEAVY:
        importlib.import_module(name)
    gc.freeze()  # what is loaded is shared by all
    vars(multiprocessing).update(
        get_context=lambda method=None: FORK,  # workers need not import all anew, either
        cpu_count=lambda: 1,  # nnU-Net's number of threads, which would not survive a fork
    )
    while True:
        connection, _ = server.accept()
        FORK.Process(target=answer, args=(server, connection)).start()
        connection.close()


def answer(server: socket.socket, connection: socket.socket) -> None:
    """Run the command that is asked for, and tell its status."""
    server.close()
    message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    process = FORK.Process(target=run, args=(*json.loads(message), streams))
    process.start()
    process.join()
    connection.send(bytes([(process.exitcode or 0) & 255]))


def run(
    name: str, arguments: list[str], folder: str, environment: dict[str, str], streams: list[int]
) -> None:
    """Become the command."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [name, *arguments]
    (entry,) = entry_points(group="console_scripts", name=name)
    sys.exit(entry.load()())


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
