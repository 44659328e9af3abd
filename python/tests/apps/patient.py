"""The WSGI apps, in a worker whose requests wait for a thread however long that is in close()."""

from caddysnake import threads
from wsgi_apps import app as app

threads.CLOSING = 60.0
