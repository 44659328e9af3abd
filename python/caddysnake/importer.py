"""From "module:variable" to an app, and a message that says what to change when that fails."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from .errors import StartError, describe

_FORM = '"module:variable", e.g. "main:app", or "main:make_app()" to call a factory'


def load(settings: Mapping[str, Any]) -> Any:
    """Imports the app that START names and checks that it is one for its interface.

    "app" is a dotted module, a colon and a dotted attribute; with "()" behind it the attribute is called without
    arguments and returns the app. Raises StartError; an exception out of the user's own code keeps its traceback.
    """
    target, interface = settings["app"], settings["interface"]
    directive = f"module_{interface}"
    module_name, colon, path = target.partition(":")
    factory = path.endswith("()")
    path = path.removesuffix("()")
    names = path.split(".")
    if colon and module_name.endswith(".py"):
        fixed = module_name.removesuffix(".py").replace("/", ".")
        raise StartError(f'{directive} {target!r}: a module is named without ".py": write "{fixed}:{path}"')
    # A module's name stands in no Python code, so it may have hyphens.
    if not colon or not all(name.isidentifier() for name in [*module_name.replace("-", "_").split("."), *names]):
        raise StartError(f"{directive} {target!r}: it must be {_FORM}")
    module = _import(module_name, directive, settings)
    app = _find(module, names, directive, target)
    if factory:
        if not callable(app):
            raise StartError(f"{directive} {target!r}: {path} in {_file(module)} is no function but {_kind(app)}")
        try:
            app = app()
        except BaseException as exc:
            message, trace = describe(exc)
            raise StartError(f"{directive} {target!r}: {path}() raised {message}", trace) from exc
    problem = _problem(app, interface, path, factory)
    if problem:
        raise StartError(f"{directive} {target!r}: {path}{'()' if factory else ''} in {_file(module)} {problem}")
    return app


def _import(name: str, directive: str, settings: Mapping[str, Any]) -> ModuleType:
    target, packages = settings["app"], settings["packages"]
    try:
        return importlib.import_module(name)
    except BaseException as exc:  # sys.exit() at import too
        if isinstance(exc, ModuleNotFoundError) and _is_missing(exc, name):
            root = settings["working_dir"] or os.getcwd()
            raise StartError(_not_found(root, exc.name or name, directive, target)) from None
        message, trace = describe(exc)
        hint = ""
        if isinstance(exc, ModuleNotFoundError) and packages:
            hint = f" (the app's packages are those in {' and '.join(packages)}: is it installed there?)"
        elif isinstance(exc, ModuleNotFoundError):
            hint = f" (the interpreter is {sys.executable}: is it the one that the app's packages are installed for?)"
        raise StartError(f"{directive} {target!r}: importing {name} raised {message}{hint}", trace) from exc


def _is_missing(exc: ModuleNotFoundError, name: str) -> bool:
    """Whether it is `name` itself, or a package it is in, that is missing, and not something which it imports."""
    if exc.name is None or not (name == exc.name or name.startswith(exc.name + ".")):
        return False
    frames = exc.__traceback__
    while frames is not None:
        code = frames.tb_frame.f_code
        if code.co_name == "<module>" and frames.tb_frame.f_globals.get("__name__") != "__main__":
            return False  # a module of the user was running, and imported something of that name
        frames = frames.tb_next
    return True


def _not_found(root: str, missing: str, directive: str, target: str) -> str:
    path = os.path.join(root, *missing.split("."))
    message = f"{directive} {target!r}: there is no module {missing!r}: "
    parent = missing.rpartition(".")[0]
    there = path if os.path.isdir(path) else f"{path}.py"
    if parent in sys.modules and os.path.exists(there):
        other = _file(sys.modules[parent])
        return f"{message}{there} is hidden, because {parent!r} is another module, {other} (rename one of the two)"
    message += f"neither {path}.py nor {path}{os.sep} exists"
    try:
        found = [entry.removesuffix(".py") for entry in os.listdir(os.path.dirname(path))]
    except OSError:
        found = []
    similar = difflib.get_close_matches(missing.rpartition(".")[2], sorted(set(found)), 3)
    if similar:
        message += f"; did you mean {' or '.join(similar)}?"
    return f"{message} (change {directive} or working_dir)"


def _find(module: ModuleType, names: list[str], directive: str, target: str) -> Any:
    value: Any = module
    for index, name in enumerate(names):
        try:
            value = getattr(value, name)
        except AttributeError:
            where = ".".join([module.__name__, *names[:index]])
            if index == 0 and _is_submodule(module, name):
                fix = f'"{module.__name__}.{name}:app"'
                raise StartError(
                    f"{directive} {target!r}: {where}.{name} is a module; name the app in it: {fix}"
                ) from None
            public = [other for other in dir(value) if not other.startswith("_")]
            similar = difflib.get_close_matches(name, public, 3) or [n for n in public if n in _USUAL]
            fix = f"did you mean {' or '.join(similar)}?" if similar else "is it defined under another name?"
            raise StartError(f"{directive} {target!r}: {where} ({_file(module)}) has no {name!r}; {fix}") from None
        except Exception as exc:  # out of the app's own code
            where = ".".join([module.__name__, *names[: index + 1]])
            message, trace = describe(exc)
            raise StartError(f"{directive} {target!r}: {where} raised {message}", trace) from exc
    return value


def _is_submodule(module: ModuleType, name: str) -> bool:
    return hasattr(module, "__path__") and importlib.util.find_spec(f"{module.__name__}.{name}") is not None


_USUAL = ("app", "application", "create_app", "make_app", "get_app", "get_asgi_application", "get_wsgi_application")


# What an app of each interface takes.
_ARGUMENTS = {"wsgi": "environ, start_response", "asgi": "scope, receive, send", "esgi": "scope, protocol"}


def _problem(app: Any, interface: str, path: str, factory: bool) -> str:
    """Returns what is wrong with the app, "" if nothing is known to be."""
    try:
        return _mistake(app, interface, path, factory)
    except Exception:  # the app makes attributes up, and raises for those that it does not have
        return "" if callable(app) else f"is no app but {_kind(app)}"


def _mistake(app: Any, interface: str, path: str, factory: bool) -> str:
    if interface == "esgi":
        app = getattr(app, "__esgi__", app)
    elif not callable(app) and hasattr(app, "__esgi__"):
        return "is an ESGI app: use module_esgi"
    if not callable(app):
        return f"is no app but {_kind(app)}"
    kind = _interface(app)
    if kind == "wsgi" and interface == "esgi" and _second(app) != "start_response":
        kind = ""  # two arguments of other names
    if kind not in ("", interface):
        return f"is {'an' if kind[0] in 'ae' else 'a'} {kind.upper()} app: use module_{kind}"
    arguments = _ARGUMENTS[interface]
    if _takes(app, arguments.count(",") + 1):
        return ""
    if _takes(app, 0) and not factory and not inspect.isclass(app):
        return f'takes no arguments; if it makes the app, write "{path}()"'
    if interface == "asgi" and _takes(app, 1):
        return f"takes one argument: ASGI 2 apps are not supported, only ASGI 3 ({arguments})"
    return f"does not take ({arguments})"


def _interface(app: Any) -> str:
    """Returns the interface that the app seems to be for, "" if that cannot be told."""
    if _is_async(app) or (_takes(app, 3) and not _takes(app, 2)):
        return "asgi"
    if _takes(app, 2) and not _takes(app, 3):
        return "esgi" if _second(app) == "protocol" else "wsgi"
    return ""


def _second(app: Any) -> str:
    """Returns the name of the second argument, "" if Python cannot tell."""
    try:
        return list(_signature(app).parameters)[1]
    except (TypeError, ValueError, IndexError):
        return ""


def _is_async(app: Any) -> bool:
    while isinstance(app, functools.partial):
        app = app.func
    return inspect.iscoroutinefunction(app) or (
        not inspect.isclass(app) and inspect.iscoroutinefunction(getattr(app, "__call__", None))  # noqa: B004
    )


def _takes(app: Any, count: int) -> bool:
    """Whether it can be called with `count` positional arguments; yes if Python cannot tell."""
    try:
        signature = _signature(app)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _signature(app: Any) -> inspect.Signature:
    """Returns what it takes itself: functools.wraps gives it the looks of what it wraps, which may take others."""
    return inspect.signature(app, follow_wrapped=False)


def _kind(value: Any) -> str:
    if issubclass(type(value), ModuleType):
        return f"the module {value.__name__}"
    if value is None:
        return "None"
    kind = type(value)
    return f"an object of type {kind.__module__}.{kind.__qualname__}"


def _file(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__
