"""pip for `make`: installs, says on one line what it is doing and for how long, and shows pip's own words if it fails.

    python tools/install.py -c constraints.txt -e .

Only the standard library: this runs before anything else is there.
"""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import threading
import time
from importlib.metadata import version

DOWNLOAD = re.compile(r"^\s*Downloading (\S+?)(?:-py\S*|-cp\S*|\.tar\.gz)?(?: \(([\d.]+ \w+)\))?\s*$")
PROGRESS = re.compile(r"^Progress (\d+) of (\d+)")
STEPS = {"Collecting": "looking for", "Building": "building", "Preparing": "preparing", "Installing": "installing"}
LARGE = re.compile(r"\d+(\.\d+)? GB|\d{2,}(\.\d+)? MB")
LAST_LINES = 40
TTY = sys.stdout.isatty()


def main() -> int:
    knows_raw = tuple(map(int, version("pip").split(".")[:2])) >= (24, 1)
    bar = ["--progress-bar", "raw"] if knows_raw else ["--progress-bar", "off"]
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *bar, *sys.argv[1:]]
    pip = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=read, args=(pip, lines), daemon=True).start()
    began, doing, what, said = time.monotonic(), "starting", "", list[str]()
    while True:
        try:
            line = lines.get(timeout=1.0)
        except queue.Empty:
            line = ""
        if line is None:
            break
        if progress := PROGRESS.match(line):
            done, total = (int(number) / 1e6 for number in progress.groups())
            doing = f"downloading {what}: {done:,.0f} of {total:,.0f} MB"
        elif download := DOWNLOAD.match(line):
            what, size = download[1].rsplit("/", 1)[-1], download[2] or ""
            doing = f"downloading {what} {size}"
            if not TTY and LARGE.match(size):
                print(f"  {doing}", flush=True)
        elif line.strip():
            said = [*said, line][-LAST_LINES:]
            first, _, rest = line.strip().partition(" ")
            if first in STEPS:
                doing = "installing" if first == "Installing" else f"{STEPS[first]} {rest.split(' (')[0]}"
        if TTY:
            print(f"\r\033[K  {time.monotonic() - began:4.0f} s  {doing[:100]}", end="", flush=True)
    code = pip.wait()
    if TTY:
        print("\r\033[K", end="")
    if code:
        print("".join(said), file=sys.stderr)
    else:
        print(f"  installed in {time.monotonic() - began:.0f} s", flush=True)
    return code


def read(pip: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    """pip's lines into the queue, None at the end."""
    assert pip.stdout is not None
    for line in pip.stdout:
        lines.put(line)
    lines.put(None)


if __name__ == "__main__":
    sys.exit(main())
