"""The command `nnunet-dml`: one module per sub-command, imported lightly so that `--help` is instant."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from nnunet_dml import __version__
from nnunet_dml._checks import InputError

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
        return int(args.run(args) or 0)
    except InputError as error:
        for line in error.problems:
            print(f"nnunet-dml {args.command}: {line}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `nnunet-dml … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RuntimeError as error:
        if not str(error).startswith("Symlink loop"):  # as Python says it before 3.13
            raise
        print(f"nnunet-dml {args.command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # disk full, no permission: named by the system, never a traceback
        where = f"{error.filename}: " if error.filename else ""
        print(f"nnunet-dml {args.command}: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"nnunet-dml {args.command}: interrupted", file=sys.stderr)
        return 130


def _predict(args: argparse.Namespace) -> None:
    from nnunet_dml.cli import predict

    predict.run(args)


if __name__ == "__main__":
    sys.exit(main())
