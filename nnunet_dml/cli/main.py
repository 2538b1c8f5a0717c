"""The command `nnunet-dml`: one module per sub-command, imported lightly so that `--help` is instant."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from nnunet_dml import __version__
from nnunet_dml._checks import InputError, problem

# Each module offers HELP, add_arguments(parser) and run(args); heavy imports stand inside run.
COMMANDS = (
    "convert",
    "split",
    "preprocess",
    "configure",
    "teach",
    "env",
    "train",
    "raters",
    "evaluate",
    "calibrate",
    "predict",
    "compare",
    "report",
    "export",
    "benchmark",
    "doctor",
)

WHAT_TO_DO = {
    errno.EACCES: "Give another path, or get the right to use this one.",
    errno.EDQUOT: "Make room, or write elsewhere.",
    errno.EEXIST: "Remove it or move it away.",
    errno.EFBIG: "Write elsewhere.",
    errno.EISDIR: "Remove it or move it away.",
    errno.ENAMETOOLONG: "Give a shorter name.",
    errno.ENOSPC: "Make room, or write elsewhere.",
    errno.ENOTDIR: "Give another path.",
    errno.EROFS: "Write elsewhere.",
}
"""By what the system says."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="nnunet-dml", description="Soft labels for an unmodified nnU-Net v2."
    )
    parser.add_argument("--version", action="version", version=f"nnunet-dml {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"nnunet_dml.cli.{name}")
        sub = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 on success, 2 on bad input (one line per problem on standard error), 130 when interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is no error
            with suppress(OSError):  # of streams that others have begun
                stream.reconfigure(errors="replace")
    if arguments[:1] == ["train"]:  # not ours to parse, and its errors are nnU-Net's
        from nnunet_dml.cli import train

        return train.hand_on(arguments[1:])
    if arguments[:1] == ["predict"] and not {"-h", "--help"} & set(arguments):
        args = argparse.Namespace(command="predict", arguments=arguments[1:], run=_predict)
    else:
        args = build_parser().parse_args(arguments)
    try:
        if getattr(args, "processes", 1) < 1:
            raise InputError(problem("-np", expected="at least 1 process", found=str(args.processes)))
        return int(args.run(args) or 0)
    except InputError as error:
        for line in error.problems:
            _say(args.command, line)
        return 2
    except BrokenPipeError:  # `nnunet-dml … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RuntimeError as error:
        if not str(error).startswith("Symlink loop"):  # as Python says it before 3.13
            raise
        _say(args.command, str(error))
        return 2
    except OSError as error:  # disk full, no permission: named by the system, never a traceback
        where, todo = str(error.filename or ""), WHAT_TO_DO.get(error.errno or 0, "")
        if not where and error.errno == errno.ENOENT:
            where, todo = ("", "") if _in_a_folder() else ("working folder", "Change to one that is there.")
        what = f"{where}: {error.strerror or error}" if where else str(error.strerror or error)
        _say(args.command, f"{what}. {todo}" if todo else what)
        return 2
    except KeyboardInterrupt:
        _say(args.command, "interrupted")
        return 130


def _in_a_folder() -> bool:
    """Whether the working folder is still there."""
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return False
    return True


def _say(command: str, line: str) -> None:
    """An error is one line, whatever the names in it hold."""
    shown = "".join(it if it.isprintable() else ascii(it)[1:-1] for it in line)
    print(f"nnunet-dml {command}: {shown}", file=sys.stderr)


def _predict(args: argparse.Namespace) -> None:
    from nnunet_dml.cli import predict

    predict.run(args)


if __name__ == "__main__":
    sys.exit(main())
