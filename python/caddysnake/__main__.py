"""The process around a worker: `PYTHON <folder>/caddysnake FD RUNTIME APP`, started by Caddy.

Everything that concerns the whole process is here and nowhere else: sys.path, signals, the exit.
"""

import gc
import os
import sys
from _thread import start_new_thread
from select import poll
from socket import socket
from time import sleep

# Caddy has started what `venv` or `python_path` names, or python3, whatever its version is.
if sys.version_info < (3, 10):  # noqa: UP036
    sys.exit(
        f"{sys.executable} is Python {sys.version.split()[0]}; workers need Python 3.10 or newer: "
        "name one with python_path, or a venv made with one"
    )

# Python has put this folder itself first; its modules must not stand in for the app's own `wsgi` or `threads`.
sys.path[0] = os.path.dirname(os.path.abspath(sys.path[0]))

import caddysnake.monitor  # noqa: E402, F401
from caddysnake.patch import patch  # noqa: E402

# What comes before this stays as it is: the connection to Caddy, and what the threads need that watch it and the app.
problem = patch() if sys.argv[2:3] == ["gevent"] else ""

import signal  # noqa: E402
from types import FrameType  # noqa: E402

from caddysnake import worker  # noqa: E402
from caddysnake.wire import ProtocolError  # noqa: E402

GRACE = 1.0  # seconds to exit in an orderly way after Caddy has gone


def main() -> int:
    """Runs one worker on the socket whose descriptor is FD, and returns the exit status."""
    if len(sys.argv) != 4 or not sys.argv[1].isdigit():
        print("caddysnake: this is started by Caddy; see https://github.com/mliezun/caddy-snake", file=sys.stderr)
        return 2
    sock = socket(fileno=int(sys.argv[1]))
    sock.set_inheritable(False)
    os.register_at_fork(after_in_child=sock.close)  # or Caddy would not see that this worker has ended
    # Caddy has made working_dir the current directory. An app finds its own modules, and no arguments that are not its.
    sys.path[0] = os.getcwd()
    del sys.argv[1:]
    _leave_signals_to_caddy()
    start_new_thread(_exit_with_caddy, (sock.fileno(),))
    try:
        # What an app has imported stays: no collection of garbage need look at it again.
        return worker.run(sock, problem, gc.freeze)
    except ProtocolError as exc:
        print(f"caddysnake: the connection to Caddy is broken: {exc}", file=sys.stderr)
        return 1


def _leave_signals_to_caddy() -> None:
    """Ctrl-C and a service manager signal the whole group; Caddy says when a worker stops, after its requests.

    The app's own processes obey as ever: exec resets a handler, unlike SIG_IGN, and a fork gets back what was there.
    """

    def ignore(number: int, _: FrameType | None) -> None:
        pass

    before = {number: signal.signal(number, ignore) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            if signal.getsignal(number) is ignore:  # the app may have set another one
                signal.signal(number, handler)

    os.register_at_fork(after_in_child=restore)


def _exit_with_caddy(descriptor: int) -> None:
    """Ends the process soon after Caddy has gone, whatever the app does: even while it is imported.

    It runs in a thread of the system: one that gevent has patched would wait for the app.
    """
    hangup = poll()
    hangup.register(descriptor, 0)  # only POLLHUP
    hangup.poll()
    sleep(GRACE)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
