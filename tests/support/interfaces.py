"""One site that serves apps/threat_app.py on every interface, told apart by the path."""

SITE = """
    python /asgi/* {
        module_asgi threat_app:asgi
        workers 1
        import worker
    }
    python /esgi/* {
        module_esgi threat_app:esgi
        workers 1
        import process
    }
    python {
        module_wsgi threat_app:wsgi
        workers 1
        import worker
    }
"""

# Where each interface is.
PATHS = {"wsgi": b"/", "asgi": b"/asgi/", "esgi": b"/esgi/"}
