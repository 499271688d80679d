"""The command `numpush`: what lies in shared memory, what comes and goes, and whether this machine is fit.

Exit codes: 0 done; 1 something failed (the message is on stderr); 2 the command line was wrong;
130 Ctrl-C (but 0 from `top` and `listen`, which have no other end).

Only what a subcommand needs is imported, when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError
    return value


_positive.__name__ = "number"  # argparse says: invalid number value: 'x'


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_count.__name__ = "count"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    from .. import __version__

    top = argparse.ArgumentParser(
        prog="numpush", description="NumPy arrays and pandas DataFrames in shared memory."
    )
    top.add_argument("--version", action="version", version=f"numpush {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    ls = commands.add_parser("ls", help="list segments: what they hold, who uses them, locks")
    ls.add_argument("--full", action="store_true", help="do not shorten random names")
    live = commands.add_parser("top", help="the same, live; q or Ctrl-C leaves")
    live.add_argument(
        "--sort",
        choices=("size", "name", "age", "holders", "leases"),
        default="size",
        help="what comes first (size): the largest, oldest, most used",
    )
    live.add_argument(
        "--interval", type=_positive, default=1.0, metavar="SECONDS", help="between two looks (1)"
    )
    live.add_argument("--count", type=_count, metavar="N", help="leave after N looks")
    live.add_argument(
        "--once", action="store_const", const=1, dest="count", help="as --count 1, and in a pipe"
    )
    gc = commands.add_parser(
        "gc", help="free what dead processes left, and memory that is kept for reuse"
    )
    rm = commands.add_parser("rm", help="unlink segments, whoever uses them")
    rm.add_argument(
        "names", nargs="+", metavar="NAME", help="a name, or 8 or more of a random name's digits"
    )
    doctor = commands.add_parser("doctor", help="check this machine, and say what to type")
    send = commands.add_parser(
        "send", help="send a file to who listens: numpush listen, or a program"
    )
    send.add_argument(
        "url", metavar="URL", help="tcp://HOST:PORT, tls+tcp://HOST:PORT, unix:///PATH"
    )
    send.add_argument(
        "path",
        metavar="FILE",
        help=".npy, .parquet, .feather, .arrow, .csv; or - for .npy on stdin",
    )
    send.add_argument("--compress", choices=("lz4", "zstd"), help="for slow links")
    send.add_argument(
        "--timeout", type=_positive, default=30.0, metavar="SECONDS", help="to wait for a peer (30)"
    )
    listen = commands.add_parser(
        "listen", help="receive objects into shared memory, and print them"
    )
    listen.add_argument("url", metavar="URL", help="tcp://127.0.0.1:9000; port 0: any")
    listen.add_argument("--name", help="publish the latest under this name")
    listen.add_argument("--save", metavar="DIR", help="write each to DIR, as .npy or .parquet")
    listen.add_argument("--count", type=_count, metavar="N", help="receive N objects")
    listen.add_argument("--max-bytes", type=_count, metavar="N", help="refuse larger objects")
    listen.add_argument("--insecure", action="store_true", help="let anybody connect")
    for command in (send, listen):
        command.add_argument("--key-file", metavar="FILE", help="a secret that both ends have")
    for command in (ls, gc, doctor):
        command.add_argument("--json", action="store_true", help="print JSON")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* (sys.argv by default); return the exit code."""
    args = parser().parse_args(argv)
    try:
        if args.command == "doctor":
            from . import doctor

            code = doctor.run(as_json=args.json)
        elif args.command in ("send", "listen"):
            code = _link(args)
        elif args.command == "top":
            from . import top

            code = top.top(sort=args.sort, interval=args.interval, count=args.count)
        else:
            from . import segments

            if args.command == "ls":
                code = segments.ls(as_json=args.json, full=args.full)
            elif args.command == "gc":
                code = segments.gc(as_json=args.json)
            else:
                code = segments.rm(args.names)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 0 if args.command in ("top", "listen") else 130
    except BrokenPipeError:  # `numpush ls | head`: nobody reads on, and the exit must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except (OSError, ImportError, ValueError, MemoryError) as error:
        print(f"numpush {args.command}: {error}", file=sys.stderr)
        return 1
    return code


def _link(args: argparse.Namespace) -> int:
    from . import link

    if args.command == "send":
        return link.send(
            args.url,
            args.path,
            key_file=args.key_file,
            compress=args.compress,
            timeout=args.timeout,
        )
    return link.listen(
        args.url,
        key_file=args.key_file,
        name=args.name,
        save=args.save,
        count=args.count,
        max_bytes=args.max_bytes,
        insecure=args.insecure,
    )
