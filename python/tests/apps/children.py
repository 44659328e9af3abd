"""Starts processes of its own, and says how they end when they are told to."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

FORKED = "forked"


def app(environ: Any, start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] in ("/forked", "/left"):
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            time.sleep(0.01)  # gevent's loop goes on in the child
            os.write(write_end, b"x")
            time.sleep(60)
            os._exit(0)
        os.close(write_end)
        os.read(read_end, 1)
        os.close(read_end)
        if environ["PATH_INFO"] == "/left":
            os.kill(os.getpid(), signal.SIGKILL)
        os.kill(pid, signal.SIGTERM)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    else:
        program = "import time\nprint(flush=True)\ntime.sleep(60)"
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        child.terminate()
        code = child.wait()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(code).encode()]
