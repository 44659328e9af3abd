"""An app whose import does not end."""

import threading

print("importing")
threading.Event().wait()
