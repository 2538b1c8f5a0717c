"""Damage to any file or folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], object]


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_its_last_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def text(path: Path) -> None:
    path.write_text("hello\n" * 20)


def latin1(path: Path) -> None:
    """Text with a letter in another encoding than UTF-8."""
    path.write_bytes(b'{"name": "M\xfcller", ' + path.read_bytes().lstrip(b"{"))


def zeros(path: Path) -> None:
    """What a crashed file system leaves."""
    path.write_bytes(bytes(path.stat().st_size))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_file(path: Path) -> None:
    """A file where a folder is expected."""
    shutil.rmtree(path)
    path.write_text("hello")


def gone(path: Path) -> None:
    """A folder that is not there."""
    shutil.rmtree(path)


def renamed(name: str) -> Damage:
    """Another name; a surrogate in it stands for a byte that is no UTF-8, as old archives have."""
    return lambda path: path.rename(path.with_name(name))


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def looping(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def a_fifo(path: Path) -> None:
    """A pipe, whose reader waits for ever."""
    path.unlink()
    os.mkfifo(path)
