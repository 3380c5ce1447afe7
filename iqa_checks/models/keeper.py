"""Runs a command that must not outlive who started it; a script of the standard library alone.

    python keeper.py COMMAND...      with a pipe as standard input

The command runs in a process group of its own, so that Ctrl-C in the terminal does not reach it.
Its whole group is ended when the pipe closes, which the kernel does for a parent that was killed
(with SIGKILL too), when the keeper is told to end, or when the command itself has ended and left
children behind. Exit status: the command's; 127 where it cannot be started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

GRACE_S = 5.0  # to close down by itself; a server of a large model frees its GPU meanwhile


def main(command: list[str]) -> int:
    """Run ``command`` to its end, or to the end of standard input."""
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, lambda *_: end(child))
    threading.Thread(target=_end_with_input, args=(child,), daemon=True).start()
    status = child.wait()
    _signal_group(child, kill=True)
    return status


def _end_with_input(child: subprocess.Popen[bytes]) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    end(child)


def end(child: subprocess.Popen[bytes]) -> None:
    """Ask the group to end, and kill it when it has not after `GRACE_S`."""
    _signal_group(child, kill=False)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(GRACE_S)
    _signal_group(child, kill=True)


def _signal_group(child: subprocess.Popen[bytes], *, kill: bool) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            child.kill()
        else:
            os.killpg(child.pid, signal.SIGKILL if kill else signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
