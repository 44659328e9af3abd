"""gevent's own WSGI server in several processes: `python -m pywsgi_server UNIX:SOCKET|PORT WORKERS MODULE:VARIABLE`."""

from gevent import monkey

monkey.patch_all()

import importlib  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
from contextlib import suppress  # noqa: E402

from gevent.pywsgi import WSGIServer  # noqa: E402


def main() -> None:
    """Listen, fork the workers, and end with them at SIGTERM."""
    address, workers, app = sys.argv[1:]
    module, _, variable = app.partition(":")
    if address.isdigit():
        listener = socket.create_server(("127.0.0.1", int(address)), backlog=2048)
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address.removeprefix("unix:"))
        listener.listen(2048)
    children = []
    for _ in range(int(workers)):
        child = os.fork()
        if child == 0:
            WSGIServer(listener, getattr(importlib.import_module(module), variable), log=None).serve_forever()
        children.append(child)
    signal.signal(signal.SIGTERM, lambda *_: _end(children))
    for child in children:
        os.waitpid(child, 0)


def _end(children: list[int]) -> None:
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    sys.exit(0)


if __name__ == "__main__":
    main()
