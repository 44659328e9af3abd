"""What apps in one interpreter share: sys.path, sys.modules, the environment, atexit; and how an app is imported anew.

A *root* is an app's working_dir. A *generation* is a number that Caddy gives what is imported together: all apps of a
configuration that it loads, or some anew. A later one is higher, and none begins before the last one has ended. The
first worker of a generation in a root finds none of the root's modules, so it imports them anew, while workers of the
generation before go on with the module objects that they have. Caddy commits a generation once all of its apps have
started and it goes on with them, or rolls it back: then sys.modules is as if it had never been.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import importlib.machinery
import os
import re
import site
import sys
import sysconfig
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from . import output
from .errors import is_ours

LATE_IMPORTS = 10.0  # seconds that imports may go on when their modules are to be forgotten
LATE_THREADS = 1.0  # seconds that threads may take to end which an app has told to

_Exit = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]  # what atexit is to call


@dataclass
class _Before:
    """What a generation has replaced, for its rollback."""

    env: dict[str, str]
    modules: dict[str, dict[str, ModuleType]] = field(default_factory=dict)  # by root
    begun: dict[str, int | None] = field(default_factory=dict)  # roots it has begun, and whose turn it was


class Shared:
    """Keeps the books. Every method may be called from any thread; make one, it takes over what `atexit` is told."""

    def __init__(self) -> None:
        self._lock = threading.Condition()  # guards what follows; reentrant, for imports under it may run any code
        self._users: Counter[tuple[str, int]] = Counter()  # live workers by root and generation
        self._begun: dict[str, int] = {}  # the generation whose modules sys.modules has of a root
        self._apps: dict[str, set[str]] = {}  # by root: the top-level modules that its apps are in
        self._installed: dict[str, frozenset[str]] = {}  # by root: those that are packages installed there
        self._unfinished: dict[str, ModuleType] = {}  # by name: what was being imported when it was forgotten
        self._before: dict[int, _Before] = {}  # generations that are neither committed nor rolled back
        self._committed = 0
        self._env: dict[str, str] = {}  # what apps have set, and what was there (None: nothing)
        self._replaced: dict[str, str | None] = {}
        self._folders: list[str] = []  # those of PYTHONPATH that sys.path has because of it
        self._exits: dict[tuple[str, int], list[_Exit]] = {}
        self._register, self._unregister = atexit.register, atexit.unregister
        atexit.register, atexit.unregister = self._on_register, self._on_unregister

    def enter(
        self,
        root: str,
        generation: int,
        roots: Collection[str],
        packages: Iterable[str],
        env: Mapping[str, str],
        app: str = "",
    ) -> bool:
        """Makes the interpreter ready for a worker to import its app. Returns whether the app is imported anew.

        Args:
            root: where the app's modules are.
            generation: the one that the worker belongs to.
            roots: those of all apps that there are to be; none if all others stay as they are, environment included.
            packages: further folders to import from, site-packages of a virtual environment.
            env: the environment variables of all apps of that generation, on top of Caddy's own.
            app: the app's module.
        """
        with self._lock:
            self._apps.setdefault(root, set()).add(app.partition(".")[0])
            self._installed[root] = _installed_in(root, self._apps[root])
            self._await_imports(lambda: self._outdated(root, generation, roots))
            if generation > self._committed and generation not in self._before:
                self._before[generation] = _Before(self._env)
                if roots:
                    self._set_env(dict(env))
            outdated_roots = self._outdated(root, generation, roots)
            anew = root in outdated_roots and root in self._begun
            for outdated in outdated_roots:
                before = self._before[generation]
                before.begun.setdefault(root, self._begun.get(root))
                before.modules[outdated] = self._forget(outdated) | before.modules.get(outdated, {})
            self._begun[root] = max(generation, self._begun.get(root, 0))
            self._users[root, generation] += 1
            _put_first(root)
            for path in packages:
                if path not in sys.path:
                    site.addsitedir(path)
            return anew

    def problem(self, module: str) -> str:
        """Returns why no worker can import a module now, "" if nothing is known.

        importlib has every other thread wait for the one that imports it.
        """
        with self._lock:
            for name, unfinished in list(self._unfinished.items()):
                if not _is_being_imported(unfinished):
                    del self._unfinished[name]
                elif f"{module}.".startswith(f"{name}."):
                    thread = "a thread that an earlier start left behind"
                    return f"module {name!r} is still being imported by {thread}: restart Caddy"
        return ""

    def modules(self, root: str) -> list[ModuleType]:
        """Returns the modules of the app in `root` that have been imported."""
        with self._lock:
            return list(self._modules(root).values())

    def finds(self, root: str, module: str) -> bool:
        """Whether an import of a module finds one, that of the app in `root` or one that is no app's."""
        top = module.partition(".")[0]
        with self._lock:
            spec = importlib.machinery.PathFinder.find_spec(top)
            paths = [spec.origin] if spec and spec.origin else spec and spec.submodule_search_locations
            return any(self._owner(top, path, self._begun) in (None, root) for path in paths or ())

    def leave(self, root: str, generation: int) -> list[str]:
        """Takes a worker off the books; the last of its kind runs the atexit functions, and lets go of the modules.

        Returns the names of threads that go on all the same, in the code of a version that another one has replaced.
        """
        with self._lock:
            self._users[root, generation] -= 1
            if self._users[root, generation]:
                return []
            del self._users[root, generation]
            exits = self._exits.pop((root, generation), [])
        while exits:
            func, args, kwargs = exits.pop()
            try:
                func(*args, **kwargs)
            except BaseException:  # as atexit does
                traceback.print_exc()
        with self._lock:
            if not any(other == root for other, _ in self._users):
                self._forget(root)
                self._begun.pop(root, None)
                sys.path_importer_cache.pop(root, None)
                with contextlib.suppress(ValueError):
                    sys.path.remove(root)
                threads = []
            else:
                threads = self._outdated_threads(root) if generation != self._begun[root] else []
        gc.collect()
        deadline = time.monotonic() + LATE_THREADS
        while threads and time.monotonic() < deadline:
            time.sleep(0.01)
            threads = [thread for thread in threads if thread in threading.enumerate()]
        return [thread.name for thread in threads]

    def commit(self, generation: int) -> None:
        """The generation has started, and Caddy goes on with it: lets go of the modules that it has replaced."""
        with self._lock:
            self._committed = max(self._committed, generation)
            self._before.pop(generation, None)

    def roll_back(self, generation: int) -> None:
        """Caddy does not go on with it, and its workers have ended: those of the one before go on as they were."""
        with self._lock:
            before = self._before.get(generation)
            if before is None:
                return
            # A worker that has not left has been left behind, and may import for ever.
            self._await_imports(lambda: [root for root in before.begun if (root, generation) not in self._users])
            del self._before[generation]
            self._set_env(before.env)
            users = {root for root, _ in self._users}
            for root in users:
                _put_first(root)
            for root, begun in before.begun.items():
                self._forget(root)
                if begun is not None and root in users:
                    self._begun[root] = begun
            for root in before.modules.keys() & users:
                sys.modules.update(before.modules[root])

    def _outdated(self, root: str, generation: int, roots: Collection[str]) -> set[str]:
        """Returns the roots whose modules a worker that enters must not find."""
        before = self._before.get(generation)
        if generation <= self._committed or (before is not None and root in before.begun):
            return set()
        return {root, *(other for other, _ in self._users if roots and other not in roots and other in self._begun)}

    def _await_imports(self, roots: Callable[[], Iterable[str]]) -> None:
        """Waits while a request of an old worker imports a module that is to be forgotten. Lets go of the lock.

        An import fails at its end if its module has left sys.modules.
        """
        deadline = time.monotonic() + LATE_IMPORTS
        while time.monotonic() < deadline and any(
            _is_being_imported(module) for root in roots() for module in self._modules(root).values()
        ):
            self._lock.wait(0.01)

    def _modules(self, root: str) -> dict[str, ModuleType]:
        """Returns the modules of the app in `root`."""
        roots = {root, *self._begun}
        return {
            name: module
            for name, module in list(sys.modules.items())
            if any(self._owner(name, path, roots) == root for path in _paths(module))
        }

    def _owner(self, name: str, path: str, roots: Collection[str]) -> str | None:
        """Returns the root of the app that a module at `path` belongs to, None if it is no app's."""
        root = _owner(name, path, roots)
        return None if root is not None and name.partition(".")[0] in self._installed.get(root, ()) else root

    def _forget(self, root: str) -> dict[str, ModuleType]:
        """Takes the modules of the app in `root` out of sys.modules and returns them."""
        found = self._modules(root)
        for name, module in found.items():
            sys.modules.pop(name, None)
            if _is_being_imported(module):
                self._unfinished[name] = module
        importlib.invalidate_caches()
        return found

    def _outdated_threads(self, root: str) -> list[threading.Thread]:
        """Returns the threads that are no worker's and run modules of the app in `root` that others have replaced."""
        frames = sys._current_frames()
        found = []
        for thread in threading.enumerate():
            outdated, frame = False, frames.get(thread.ident or 0)
            # What output.py puts around a thread is in each.
            while frame is not None and (not is_ours(frame) or frame.f_code.co_filename == output.__file__):
                module = sys.modules.get(str(frame.f_globals.get("__name__")))
                outdated |= self._root(frame) == root and getattr(module, "__dict__", None) is not frame.f_globals
                frame = frame.f_back
            if outdated and frame is None:
                found.append(thread)
        return found

    def _set_env(self, env: dict[str, str]) -> None:
        """Sets variables, and does what Python does at its start because of them. The apps' folders are to follow."""
        for name in self._env.keys() - env.keys():
            value = self._replaced.pop(name)
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for name in env.keys() - self._env.keys():
            self._replaced[name] = os.environ.get(name)
        os.environ.update(env)
        if hasattr(time, "tzset"):
            time.tzset()
        if env.get("PYTHONPATH") != self._env.get("PYTHONPATH"):
            others = [path for path in sys.path if path not in self._folders]
            folders = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
            self._folders = [path for path in folders if path not in others]
            sys.path[:] = self._folders + others
        self._env = env

    def _on_register(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """atexit.register(): what an app's own modules register runs when the app ends; all else, with Caddy's exit.

        That is also what a package registers when an app calls it: Sentry keeps its client, and OpenTelemetry its
        provider, for the app's next version too.
        """
        with self._lock:
            root = self._root(sys._getframe(1))
            if root is not None:
                self._exits.setdefault((root, self._begun[root]), []).append((func, args, kwargs))
                return func
        return self._register(func, *args, **kwargs)

    def _on_unregister(self, func: Callable[..., Any], /) -> None:
        """atexit.unregister(): an app's own modules do not take back what another app's have registered."""
        with self._lock:
            root = self._root(sys._getframe(1))
            for (other, _), exits in self._exits.items():
                if root in (None, other):
                    exits[:] = [one for one in exits if one[0] != func]
        self._unregister(func)

    def _root(self, frame: FrameType) -> str | None:
        """Returns the root of the app whose module runs in a frame, None if it is no app's."""
        return self._owner(str(frame.f_globals.get("__name__")), str(frame.f_globals.get("__file__")), self._begun)


def _installed_in(root: str, apps: Collection[str]) -> frozenset[str]:
    """Returns the top-level modules that `pip install --target` has put into a folder.

    A distribution that has one of `apps`, top-level modules too, is the project itself.
    """
    found: set[str] = set()
    for record in Path(root).glob("*.dist-info/RECORD"):
        with contextlib.suppress(OSError):
            lines = record.read_text(encoding="utf-8", errors="replace").splitlines()
            names = {re.split("[/.,]", line.lstrip('"'), maxsplit=1)[0] for line in lines}
            if names.isdisjoint(apps):
                found |= names
    return frozenset(found - {""})


def _put_first(root: str) -> None:
    """Has modules looked for in `root` before all other folders."""
    with contextlib.suppress(ValueError):
        sys.path.remove(root)
    sys.path.insert(0, root)


def _is_being_imported(module: ModuleType) -> bool:
    try:
        return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))
    except Exception:  # sys.modules may hold anything
        return False


def _paths(module: ModuleType) -> list[str]:
    """Where a module comes from; a namespace package has several places."""
    try:
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            return [file]
        return [path for path in getattr(module, "__path__", ()) if isinstance(path, str)]
    except Exception:  # likewise
        return []


# What is installed stays, also where a virtual environment, Python itself, or this package lies within an app's folder.
# sys.prefix is none of these folders: it is that of the app where that is `python -m venv .`.
_LIBRARIES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_DLLS = os.path.join(sys.base_prefix, "DLLs")  # the rest of Windows' standard library
_INSTALLED = tuple({path + os.sep for path in (*_LIBRARIES, _DLLS, os.path.dirname(__file__))})
_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def _owner(name: str, path: str, roots: Collection[str]) -> str | None:
    """Returns the root of the app that a module at `path` belongs to, None if it is no app's.

    Where one app's folder lies in another one's, a module belongs to the folder in which its name begins: the file
    /srv/api/main.py is `api.main` of the app in /srv, or `main` of that in /srv/api.
    """
    if path.startswith(_INSTALLED) or any(part in path for part in _PACKAGES):
        return None
    folders = {root: root.rstrip(os.sep) + os.sep for root in roots}
    top = name.partition(".")[0]

    def fit(root: str) -> tuple[bool, int]:
        entry = path[len(folders[root]) :].partition(os.sep)[0]
        return entry.partition(".")[0] == top, len(root)

    return max((root for root, folder in folders.items() if path.startswith(folder)), key=fit, default=None)
