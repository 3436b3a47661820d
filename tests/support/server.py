"""The dashboard as people start it, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """`python -m dashboard` in a process of its own; `url` is the address that it printed.

    module: what is started in its place; environ: more of its environment.
    """

    def __init__(
        self, root: Path, *args: str, module: str = "dashboard", environ: dict | None = None
    ) -> None:
        home = root / "home"
        home.mkdir(exist_ok=True)
        quiet = ("CXR_", "STREAMLIT_", "DISPLAY", "WAYLAND_DISPLAY")
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *args],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith(quiet)},
                "HOME": str(home),
                "PYTHONUNBUFFERED": "1",
                "CXR_ARTIFACTS": str(root / "artifacts"),
                "CXR_DATA": str(root / "data"),
                "CXR_CACHE": str(root / "cache"),
                "CXR_ANNOTATIONS": str(root / "annotations"),
                **(environ or {}),
            },
        )
        self.lines: list[str] = []
        self._ready = threading.Event()
        self.url = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(60) or not self.url:
            self.stop()
            raise AssertionError("The dashboard did not start:\n" + self.output)

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self._reader.join(5)

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line)
            address = re.search(r"Dashboard: (http://\S+)", line)
            if address and not self.url:
                self.url = address.group(1)
                self._ready.set()
        self._ready.set()
