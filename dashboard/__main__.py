"""`python -m dashboard`: start the dashboard and print its address once it answers."""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import sys
import threading
import time
from pathlib import Path

APP = Path(__file__).with_name("app.py")
LOCAL = "127.0.0.1"
FIRST_PORT = 8501


def main(argv: list[str] | None = None) -> int:
    """Run the server until Ctrl-C. Returns 0 then, 2 when address or port cannot be had."""
    args = _build_parser().parse_args(argv)
    if not is_free(args.address, 0):
        print(
            f"This machine has no address {args.address!r} to listen on. Leave --address out to "
            "serve this machine only, or give 0.0.0.0 to serve the whole network.",
            file=sys.stderr,
        )
        return 2
    if args.port is not None and not is_free(args.address, args.port):
        print(
            f"Port {args.port} on {args.address} cannot be used (another program has it, or it is "
            "not allowed). Choose another, or leave the port out to take the next free one.",
            file=sys.stderr,
        )
        return 2
    # Without a port Streamlit takes the first free one from 8501 as it binds it, so two
    # dashboards started at the same moment never meet.
    flags = {"server.address": args.address, "logger.hideWelcomeMessage": "true"}
    if args.port is not None:
        flags["server.port"] = str(args.port)
    try:
        from streamlit.web import cli

        from dashboard.server.upload_retention import guard_uploads

        guard_uploads()
        threading.Thread(target=_announce, args=(args.address,), daemon=True).start()
        options = [f"--{name}={value}" for name, value in flags.items()]
        cli.main(["run", str(APP), *options], prog_name="dashboard", standalone_mode=False)
    except ModuleNotFoundError as error:
        if error.name != "streamlit":
            raise
        print("Streamlit is not installed here. Run `make dashboard`.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    except Exception as error:
        # click turns a Ctrl-C that comes before the server's own handler into this.
        if type(error).__name__ != "Abort":
            raise
    return 0


def is_free(address: str, port: int) -> bool:
    """Whether a server could listen on the port now; port 0: on the address at all."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            if sys.platform != "win32":
                # As servers do: a port whose last connections are still closing counts as free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except (OSError, TypeError):  # the latter: a name that cannot be encoded
        return False
    return True


def _announce(address: str) -> None:
    """Print the address that the server really has, as soon as it is up; then load the models."""
    from streamlit import config, runtime

    initial = runtime.RuntimeState.INITIAL
    while not (runtime.exists() and runtime.get_instance().state is not initial):
        time.sleep(0.05)
    # Nor before Ctrl-C is Streamlit's own: until then it would end in a traceback.
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        time.sleep(0.02)
    port = config.get_option("server.port")
    everywhere = address in ("0.0.0.0", "::")
    host = "localhost" if everywhere else f"[{address}]" if ":" in address else address
    also = ", and from other machines under this one's name" if everywhere else ""
    print(f"Dashboard: http://{host}:{port}{also} (Ctrl-C stops it)", flush=True)
    from dashboard.server.warmup import preload

    preload()


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dashboard",
        description="Start the dashboard on the runs in artifacts/ (or $CXR_ARTIFACTS).",
        epilog="Example: python -m dashboard --port 8600",
    )
    parser.add_argument(
        "--port", type=_port, help=f"use this port only (default: first free from {FIRST_PORT})"
    )
    parser.add_argument(
        "--address",
        default=LOCAL,
        help=f"listen here (default {LOCAL}: this machine only; 0.0.0.0: the whole network)",
    )
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
