"""A server of chat completions that starts, fails and answers as it is told; run as a script.

    python fake_engine.py --model FOLDER --name NAME --port N [--behaviour WHAT] [--pids FILE]

Appends its process id and that of a child of its own, which an engine's workers stand for, to
FILE. Behaviours: ok, dies (at once), hangs (never ready), mid-run (dies at the third request),
deaf (ignores SIGTERM), chinese and empty (what it replies), code (wants trust_remote_code).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from iqa_checks.models.loopback import Fault, LoopbackServer


class Foreign(LoopbackServer):
    """Replies in Chinese that the quality is good."""

    def _completion(self, body: bytes) -> dict[str, Any]:
        completion = super()._completion(body)
        completion["choices"][0]["message"]["content"] = "这张图片的质量很好，细节清晰。"
        return completion


def fault(number: int, behaviour: str) -> Fault | None:
    if behaviour == "mid-run" and number == 3:
        print("CUDA error: device-side assert", flush=True)
        os._exit(3)
    return Fault("empty") if behaviour == "empty" else None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--name", default="")
    parser.add_argument("--port", type=int)
    parser.add_argument("--behaviour", default="ok")
    parser.add_argument("--pids")
    parser.add_argument("--trust-remote-code", action="store_true")
    given = parser.parse_args()
    print("environment", sorted(os.environ), flush=True)
    if given.pids:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with Path(given.pids).open("a") as file:
            file.write(f"{os.getpid()} {child.pid}\n")
    if given.behaviour == "dies":
        sys.exit("ValueError: no CUDA device is available")
    if given.behaviour == "code" and not given.trust_remote_code:
        sys.exit("ValueError: please pass the argument `trust_remote_code=True`")
    if given.behaviour == "hangs":
        time.sleep(600)
    if given.behaviour == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    kind = Foreign if given.behaviour == "chinese" else LoopbackServer
    server = kind(port=given.port, faults=lambda n: fault(n, given.behaviour))
    server.model = given.name or given.model
    with server:
        print("ready", flush=True)
        while True:
            time.sleep(600)


if __name__ == "__main__":
    main()
