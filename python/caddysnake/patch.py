"""gevent's patches of the standard library, for `runtime gevent`: they come before anything else is imported."""


def patch() -> str:
    """Makes everything in the process that waits wait in greenlets. Returns "", or why that cannot be, in one line.

    From here on a MonkeyPatchWarning is an error, also one that the app brings about: what gevent warns of breaks later
    and elsewhere.
    """
    import sys

    try:
        from gevent import monkey
    except ImportError as exc:
        return (
            f"runtime gevent: gevent is not installed in {sys.prefix} ({exc}): "
            f"install it with `{sys.executable} -m pip install gevent`"
        )
    import warnings

    warnings.filterwarnings("error", category=monkey.MonkeyPatchWarning)
    try:
        monkey.patch_all()
    except monkey.MonkeyPatchWarning as exc:
        return (
            f"runtime gevent: gevent cannot patch the process, because something was imported before the app: {exc} "
            f"(look for sitecustomize.py, usercustomize.py and .pth files in {sys.prefix})"
        )
    return ""
