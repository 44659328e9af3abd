"""An app that is never ready; see test_python_server.py."""

import time

time.sleep(1000)
app = None
