"""Django in an interpreter that apps share. It has one project's settings, for ever, whatever is imported later."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

KEPT = (
    "django keeps the settings, models, urls and views that it has, a reload does not change them: "
    "restart caddy, or set workers_runtime process"
)

_VARIABLE = "DJANGO_SETTINGS_MODULE"
_GIVEN = os.environ.get(_VARIABLE)  # in Caddy's own environment, before any app has set it


def is_used(modules: Iterable[ModuleType]) -> bool:
    """Whether one of an app's modules runs Django: sets it up, or has a handler of it.

    Some utilities of Django's need no settings, so that there is anything of it does not tell.
    """
    starts = [
        sys.modules.get("django"),
        _get("django.core.wsgi", "get_wsgi_application"),
        _get("django.core.asgi", "get_asgi_application"),
    ]
    handler = _get("django.core.handlers.base", "BaseHandler") or ()
    return any(
        issubclass(type(value), handler) or any(value is start for start in starts if start is not None)
        for module in modules
        for value in list(vars(module).values())
    )


def problem(finds: Callable[[str], bool], env: Mapping[str, str]) -> str:
    """Returns why Django would serve another project in place of an app's own, "" if it does not.

    A second `os.environ.setdefault("DJANGO_SETTINGS_MODULE", ...)` does nothing, and says nothing.

    Args:
        finds: whether a module is the app's own, or installed.
        env: the variables that the configuration sets: one that says which settings all apps have is meant.
    """
    settings = _get("django.conf", "settings")
    name = settings.SETTINGS_MODULE if settings is not None and settings.configured else os.environ.get(_VARIABLE)
    if not name or name in (_GIVEN, env.get(_VARIABLE)) or finds(name):
        return ""
    return (
        f"Django already has the settings {name!r} of another app in this interpreter, and would serve its site: "
        "set workers_runtime process for one of the two (and restart Caddy if the other one has gone)"
    )


def _get(module: str, name: str) -> Any:
    return getattr(sys.modules.get(module), name, None)
