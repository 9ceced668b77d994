"""The console command ``ordmap``, also ``python -m ordmap``: its arguments, its exit codes, and nothing else."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ordmap import __version__

__all__ = ["main"]

#: What a shell gives a command that Ctrl-C ended.
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (``None``: the program's own), and return its exit code.

    0: all is well; 1: a result differs from the serial loop's; 2: there is nothing to work on, or the arguments are
    bad; 130: Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    from ordmap import demo  # after the arguments, so that --help needs none of it

    try:
        return demo.run(arguments.folder, arguments.workers)
    except KeyboardInterrupt:
        print("ordmap demo: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader has left, as `head` does; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ordmap", description="map, in parallel, in order")
    parser.add_argument("--version", action="version", version=f"ordmap {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="run a real job with every local backend, beside the plain loop",
        description="Parse every module of the standard library, or decode the images or hash the files of FOLDER: "
        "in order, with the plain loop and with each local backend. Every result is checked against the plain loop's.",
    )
    demo.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="a folder of your own, with what is in it")
    demo.add_argument(
        "--workers", type=_workers, metavar="N", help="how many workers; without it, as many as there are usable cores"
    )
    return parser


def _workers(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: write a whole number, at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
