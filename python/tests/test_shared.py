"""What apps in one interpreter share, and how one is imported anew. Each test has its own books and folders."""

from __future__ import annotations

import atexit
import builtins
import importlib
import os
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
from caddysnake.shared import Shared
from driver import DEADLINE, PACKAGE


@pytest.fixture
def shared() -> Iterator[Shared]:
    path, exits = list(sys.path), (atexit.register, atexit.unregister)
    yield Shared()
    sys.path[:], (atexit.register, atexit.unregister) = path, exits
    for name in [name for name in sys.modules if name.startswith("shared_")]:
        del sys.modules[name]


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / "shared_app.py").write_text("import shared_helper\n")
    (tmp_path / "shared_helper.py").write_text("import atexit, os\nos.environ.get('X')\n")
    (tmp_path / "shared_spaces" / "inner").mkdir(parents=True)
    (tmp_path / "shared_spaces" / "inner" / "deep.py").touch()
    packages = tmp_path / "venv" / "lib" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "shared_package.py").touch()
    return str(tmp_path)


def enter(shared: Shared, root: str, generation: int, *others: str, packages: tuple[str, ...] = (), **env: str) -> None:
    shared.enter(root, generation, [root, *others], packages, env)


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_a_new_generation_imports_anew_and_the_same_one_does_not(shared: Shared, root: str) -> None:
    enter(shared, root, 1)
    first, helper, deep = load("shared_app"), load("shared_helper"), load("shared_spaces.inner.deep")
    enter(shared, root, 1)
    assert load("shared_app") is first, "another app of the same configuration"
    shared.commit(1)
    enter(shared, root, 1)
    assert load("shared_app") is first, "a worker in another's place"
    enter(shared, root, 2)
    assert load("shared_app") is not first
    assert load("shared_helper") is not helper
    assert load("shared_spaces.inner.deep") is not deep


def test_one_app_anew_leaves_the_others_and_the_environment_alone(shared: Shared, root: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "shared_other.py").touch()
    enter(shared, root, 1, str(other), SHARED_X="1")
    enter(shared, str(other), 1, root, SHARED_X="1")
    app, helper, neighbour = load("shared_app"), load("shared_helper"), load("shared_other")
    shared.commit(1)
    shared.enter(str(other), 2, [], (), {"SHARED_X": "2"})
    assert load("shared_other") is not neighbour
    assert load("shared_app") is app
    assert load("shared_helper") is helper
    assert os.environ["SHARED_X"] == "1"
    shared.roll_back(2)
    assert load("shared_other") is neighbour
    assert os.environ["SHARED_X"] == "1"


def test_packages_stay(shared: Shared, root: str) -> None:
    folder = os.path.join(root, "venv", "lib", "site-packages")
    enter(shared, root, 1, packages=(folder,))
    assert sys.path[-1] == folder
    package = load("shared_package")
    shared.commit(1)
    enter(shared, root, 2, packages=(folder,))
    assert load("shared_package") is package
    assert sys.path.count(folder) == 1
    del sys.modules["shared_package"]


def record(root: str, distribution: str, *files: str) -> None:
    """What `pip install --target` leaves of a package."""
    folder = Path(root) / f"{distribution}-1.0.dist-info"
    folder.mkdir()
    lines = [f"{file},sha256=x,0" for file in ("../../bin/tool", *files)]
    (folder / "RECORD").write_text("\n".join(lines) + "\n")


def test_packages_in_an_apps_own_folder_stay(shared: Shared, root: str) -> None:
    """`pip install --target .`: compiled ones cannot be imported a second time."""
    record(root, "Helper", "shared_helper.py", '"shared_spaces/inner/a,b.py"', "shared_spaces/inner/deep.py")
    shared.enter(root, 1, [root], [], {}, "shared_app")
    app, helper, deep = load("shared_app"), load("shared_helper"), load("shared_spaces.inner.deep")
    shared.commit(1)
    shared.enter(root, 2, [root], [], {}, "shared_app")
    assert load("shared_app") is not app
    assert load("shared_helper") is helper
    assert load("shared_spaces.inner.deep") is deep


def test_an_app_that_is_installed_in_its_folder_itself_is_imported_anew(shared: Shared, root: str) -> None:
    """`pip install --target . .`"""
    record(root, "project", "shared_app.py", "shared_spaces/inner/deep.py")
    record(root, "Helper", "shared_helper.py")
    shared.enter(root, 1, [root], [], {}, "shared_app")
    app, helper, deep = load("shared_app"), load("shared_helper"), load("shared_spaces.inner.deep")
    shared.commit(1)
    shared.enter(root, 2, [root], [], {}, "shared_app")
    assert load("shared_app") is not app
    assert load("shared_helper") is helper
    assert load("shared_spaces.inner.deep") is not deep


def test_an_app_whose_folder_is_the_virtual_environment_is_imported_anew(tmp_path: Path) -> None:
    """`python -m venv .`: the folder is sys.prefix too, and the app is no installed package all the same."""
    venv.create(tmp_path, symlinks=True)
    (tmp_path / "app.py").touch()
    program = f"""
import sys
from caddysnake.shared import Shared
shared, root = Shared(), {str(tmp_path)!r}
assert sys.prefix == root
shared.enter(root, 1, [root], [], {{}})
import app as first
shared.commit(1)
shared.enter(root, 2, [root], [], {{}})
import app as second
assert first is not second
"""
    python, environment = tmp_path / "bin" / "python", {"PYTHONPATH": str(PACKAGE.parent)}
    subprocess.run([python, "-c", program], env=environment, check=True)


def test_the_worker_package_stays_where_an_apps_folder_holds_it(shared: Shared) -> None:
    """Caddy unpacks it below the home folder, which may be that of an app."""
    before = dict(sys.modules)
    try:
        enter(shared, str(PACKAGE.parent), 1)
        assert sys.modules["caddysnake.shared"] is before["caddysnake.shared"]
        assert "driver" not in sys.modules
    finally:
        sys.modules.update(before)


def test_a_generation_that_fails_is_as_if_it_had_not_been(shared: Shared, root: str) -> None:
    enter(shared, root, 1, KEPT="1")
    shared.commit(1)
    first = load("shared_app")
    enter(shared, root, 2, KEPT="2", NEW="2")
    assert load("shared_app") is not first
    assert (os.environ["KEPT"], os.environ["NEW"]) == ("2", "2")
    shared.leave(root, 2)
    shared.roll_back(2)
    assert load("shared_app") is first
    assert os.environ["KEPT"] == "1"
    assert "NEW" not in os.environ
    enter(shared, root, 1)
    assert load("shared_app") is first, "a worker in another's place"


@pytest.mark.parametrize("end", ["another generation", "a rollback"])
def test_a_module_that_is_being_imported_is_imported_to_its_end(
    shared: Shared, root: str, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """By a request that an old worker still has; importlib raises KeyError if the module has left sys.modules."""
    begun, may_end = threading.Event(), threading.Event()
    monkeypatch.setattr(builtins, "shared_pause", lambda: (begun.set(), may_end.wait(DEADLINE)), raising=False)
    Path(root, "shared_late.py").write_text("shared_pause()\n")
    enter(shared, root, 1)
    shared.commit(1)
    if end == "a rollback":
        enter(shared, root, 2)
        shared.leave(root, 2)
    with ThreadPoolExecutor() as pool:
        late = pool.submit(load, "shared_late")
        assert begun.wait(DEADLINE)
        threading.Timer(0.1, may_end.set).start()
        if end == "a rollback":
            shared.roll_back(2)
        else:
            enter(shared, root, 2)
        assert late.result().__name__ == "shared_late"
    assert "shared_late" not in sys.modules


def test_what_a_package_puts_among_the_modules_is_nobodys_concern(shared: Shared, root: str) -> None:
    """Such as an object that imports what it stands for when it is looked at, and fails."""

    class Odd:
        def __init__(self, **known: str) -> None:
            vars(self).update(known)

        def __getattr__(self, name: str) -> None:
            raise RuntimeError(name)

    path = os.path.join(root, "shared_odd.py")
    sys.modules.update(shared_odd=Odd(), shared_odder=Odd(__file__=path))  # type: ignore[arg-type]
    enter(shared, root, 1)
    first = load("shared_app")
    shared.commit(1)
    enter(shared, root, 2)
    assert load("shared_app") is not first


def test_variables_are_what_they_were_before(shared: Shared, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "caddy's")
    enter(shared, root, 1, KEPT="1", GONE="1")
    shared.commit(1)
    enter(shared, root, 2)
    assert os.environ["KEPT"] == "caddy's"
    assert "GONE" not in os.environ


def test_the_folders_of_pythonpath_come_in_their_order_and_go_with_it(
    shared: Shared, root: str, tmp_path: Path
) -> None:
    folders = [str(tmp_path / name) for name in ("x", "y", "z")]
    x, y, z = folders
    before = list(sys.path)
    enter(shared, root, 1, PYTHONPATH=os.pathsep.join([x, y]))
    enter(shared, root, 1, PYTHONPATH=os.pathsep.join([x, y]))
    assert sys.path == [root, x, y, *before]
    shared.commit(1)
    enter(shared, root, 2, PYTHONPATH=os.pathsep.join([z, y]))
    assert sys.path == [root, z, y, *before]
    shared.leave(root, 2)
    shared.roll_back(2)
    assert sys.path == [root, x, y, *before]
    enter(shared, root, 3)
    assert sys.path == [root, *before]


def test_the_time_zone_is_the_one_that_is_set(shared: Shared, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    try:
        enter(shared, root, 1, TZ="EAST-2")
        assert time.tzname[0] == "EAST"
        assert time.localtime().tm_gmtoff == 2 * 3600
        shared.leave(root, 1)
        shared.roll_back(1)
        assert time.localtime().tm_gmtoff == 0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_an_app_that_has_gone_leaves_no_modules_and_no_path(shared: Shared, root: str) -> None:
    enter(shared, root, 1)
    enter(shared, root, 1)
    load("shared_app")
    shared.commit(1)
    shared.leave(root, 1)
    assert root in sys.path
    shared.leave(root, 1)
    assert root not in sys.path
    assert not {"shared_app", "shared_helper"} & sys.modules.keys()


def test_an_app_in_another_folder_takes_the_place_of_one_that_is_drained(
    shared: Shared, root: str, tmp_path: Path
) -> None:
    enter(shared, root, 1)
    shared.commit(1)
    first = load("shared_app")
    new = tmp_path / "release-2"
    new.mkdir()
    (new / "shared_app.py").touch()
    shared.enter(str(new), 2, [str(new)], [], {})
    assert load("shared_app").__file__ == str(new / "shared_app.py")
    shared.leave(str(new), 2)
    shared.roll_back(2)
    assert load("shared_app") is first


def test_a_rollback_brings_no_modules_back_of_an_app_that_has_gone(shared: Shared, root: str, tmp_path: Path) -> None:
    """As with autoreload, where the old worker goes before it is known whether the new one starts."""
    enter(shared, root, 1)
    shared.commit(1)
    load("shared_app")
    enter(shared, root, 2)
    shared.leave(root, 1)
    shared.leave(root, 2)
    shared.roll_back(2)
    assert "shared_app" not in sys.modules
    new = tmp_path / "release-2"
    new.mkdir()
    (new / "shared_app.py").touch()
    enter(shared, str(new), 3)
    assert load("shared_app").__file__ == str(new / "shared_app.py")


def test_an_app_in_a_folder_of_another_ones_keeps_its_modules(shared: Shared, root: str) -> None:
    inner = os.path.join(root, "shared_spaces", "inner")
    Path(inner, "shared_inner.py").write_text("import atexit\nran = []\natexit.register(ran.append, 1)\n")
    enter(shared, root, 1, inner)
    enter(shared, inner, 1, root)
    outers = {name: load(name) for name in ("shared_app", "shared_spaces.inner.shared_inner")}
    inners = load("shared_inner")
    shared.commit(1)
    shared.enter(root, 2, [], [], {})
    assert load("shared_inner") is inners
    for name, module in outers.items():
        assert load(name) is not module
    shared.commit(2)
    shared.leave(root, 1)
    shared.leave(root, 2)
    assert load("shared_inner") is inners
    assert not outers.keys() & sys.modules.keys()
    assert inners.ran == []
    shared.leave(inner, 1)
    assert inners.ran == [1]
    assert "shared_inner" not in sys.modules


def test_what_an_apps_own_modules_register_runs_at_its_end(shared: Shared, root: str) -> None:
    source = "import atexit\nran = []\n"
    for arguments in ("1", "x=2", "3"):
        source += f"atexit.register(ran.append, {arguments})\n"
    Path(root, "shared_helper.py").write_text(source)
    enter(shared, root, 1)
    shared.commit(1)
    first = load("shared_helper").ran
    enter(shared, root, 2)
    shared.commit(2)
    second = load("shared_helper").ran
    shared.leave(root, 1)
    assert (first, second) == ([3, 1], []), "last in, first out, and an error is no reason to stop"
    shared.leave(root, 2)
    assert second == [3, 1]


def test_what_a_package_registers_for_an_app_is_not_undone_for_its_next_version(shared: Shared, root: str) -> None:
    """It may keep one thing for all, as Sentry does its client."""
    folder = os.path.join(root, "venv", "lib", "site-packages")
    package = "import atexit\nran = []\ndef once():\n    ran or atexit.register(ran.append, 'closed')\n"
    Path(folder, "shared_package.py").write_text(package)
    Path(root, "shared_helper.py").write_text("import shared_package\nshared_package.once()\n")
    enter(shared, root, 1, packages=(folder,))
    load("shared_helper")
    shared.leave(root, 1)
    ran = load("shared_package").ran
    assert ran == []
    atexit.unregister(ran.append)


def test_what_an_app_has_unregistered_does_not_run(shared: Shared, root: str) -> None:
    source = "import atexit\nran, unwanted = [], lambda name: ran.append(name)\n"
    for call in ("register(ran.append, 1)", "register(unwanted, 2)", "register(unwanted, 3)", "unregister(unwanted)"):
        source += f"atexit.{call}\n"
    Path(root, "shared_helper.py").write_text(source)
    enter(shared, root, 1)
    shared.commit(1)
    ran = load("shared_helper").ran
    shared.leave(root, 1)
    assert ran == [1]


def test_an_app_cannot_unregister_what_another_one_has_registered(
    shared: Shared, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    monkeypatch.setattr(builtins, "shared_end", lambda: ran.append(1), raising=False)
    other = tmp_path / "other"
    other.mkdir()
    Path(root, "shared_helper.py").write_text("import atexit\natexit.register(shared_end)\n")
    (other / "shared_other.py").write_text("import atexit\natexit.unregister(shared_end)\n")
    enter(shared, root, 1, str(other))
    enter(shared, str(other), 1, root)
    load("shared_helper")
    load("shared_other")
    shared.leave(root, 1)
    assert ran == [1]
