"""The Python side of Caddy Snake: a worker that runs one WSGI, ASGI or ESGI app for Caddy.

Caddy starts it as ``PYTHON <folder>/caddysnake FD RUNTIME APP``; docs/internals.md describes how the two talk.
Nothing here is meant to be imported by an app.
"""

__version__ = "0.1.0"
