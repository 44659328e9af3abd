"""Which app "module:variable" means, and what the message says when it means none."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from caddysnake import importer
from caddysnake.errors import StartError
from conftest import Launch
from driver import settings

FILES = {
    "main.py": """
        def app(environ, start_response):
            start_response("200 OK", [])
            return [b"main"]

        class Holder:
            class inner:
                app = staticmethod(app)

        def make_app():
            return app

        def make_nothing():
            pass

        def make_failure():
            raise ValueError("no settings")

        async def async_app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"async"})

        def plain_asgi(scope, receive, send):
            return async_app(scope, receive, send)

        class AsyncCall:
            async def __call__(self, scope, receive, send):
                await async_app(scope, receive, send)

        class Call:
            def __call__(self, environ, start_response):
                return app(environ, start_response)

        class OldAsgi:
            def __init__(self, scope):
                pass

        def old_asgi(scope):
            pass

        class ClassApp:
            def __init__(self, environ, start_response):
                start_response("200 OK", [])

            def __iter__(self):
                yield b"class"

        import functools
        def three(extra, environ, start_response):
            return app(environ, start_response)
        partial = functools.partial(three, "extra")
        async_partial = functools.partial(async_app)
        async_call = AsyncCall()
        call = Call()
        number = 5
        nothing = None
        def anything(*args):
            return app(*args)
        def four(a, b, c, d):
            pass

        def view(request):
            return b"main"
        @functools.wraps(view)
        def wrapped(environ, start_response):
            return app(environ, start_response)
        @functools.wraps(view)
        async def async_wrapped(scope, receive, send):
            await async_app(scope, receive, send)

        class Proxy:
            def __getattr__(self, name):
                raise KeyError(name)
            @property
            def broken(self):
                raise RuntimeError("no context")
        class WSGIProxy(Proxy):
            def __call__(self, environ, start_response):
                return app(environ, start_response)
        class ASGIProxy(Proxy):
            async def __call__(self, scope, receive, send):
                await async_app(scope, receive, send)
        proxy, wsgi_proxy, asgi_proxy = Proxy(), WSGIProxy(), ASGIProxy()
    """,
    "package/__init__.py": "import os.path as path",
    "package/sub/__init__.py": "",
    "package/sub/web.py": "from main import app",
    "web-shop/__init__.py": "",
    "web-shop/my-web.py": "from main import app",
    "json/wsgi.py": "from main import app",
    "twice.py": "",
    "twice/web/__init__.py": "from main import app",
    "nested.py": "import not_installed_anywhere\napp = None",
    "nested_same.py": "import nested_same.more\napp = None",
    "broken.py": "def app(:\n",
    "raises.py": "raise ValueError('no database')",
    "exits.py": "import sys\nsys.exit('no licence')",
    "package/deep.py": "from package import missing_part",
    "surrogate.py": "raise ValueError('\\udc80')",
    "stubborn.py": "class E(Exception):\n    def __str__(self):\n        1/0\nraise E",
    "huge.py": "raise ValueError('x' * 10_000_000)",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("app")
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.splitlines()
        indent = 8 if text.startswith("\n") else 0
        path.write_text("\n".join(line[indent:] for line in lines) + "\n")
    return root


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("main:app", b"main"),
        ("main:Holder.inner.app", b"main"),
        ("main:make_app()", b"main"),
        ("main:call", b"main"),
        ("main:partial", b"main"),
        ("main:anything", b"main"),
        ("main:ClassApp", b"class"),
        ("main:wrapped", b"main"),
        ("main:wsgi_proxy", b"main"),
        ("package.sub.web:app", b"main"),
        ("web-shop.my-web:app", b"main"),
    ],
)
def test_a_wsgi_app_is_found(launch: Launch, folder: Path, target: str, body: bytes) -> None:
    worker = launch(target, "wsgi", working_dir=str(folder)).start()
    assert worker.get("/").body == body
    assert worker.stop() == 0


@pytest.mark.parametrize(
    "target", ["async_app", "plain_asgi", "async_call", "async_partial", "async_wrapped", "asgi_proxy"]
)
def test_an_asgi_app_is_found(launch: Launch, folder: Path, target: str) -> None:
    worker = launch(f"main:{target}", "asgi", working_dir=str(folder)).start()
    assert worker.get("/").body == b"async"
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("interface", "target", "parts"),
    [
        ("wsgi", "main", ['must be "module:variable"', '"main:make_app()"']),
        ("wsgi", ":app", ['must be "module:variable"']),
        ("wsgi", "main:", ['must be "module:variable"']),
        ("wsgi", "main.py:app", ['named without ".py"', 'write "main:app"']),
        ("wsgi", "package/sub/web.py:app", ['write "package.sub.web:app"']),
        ("wsgi", "package/web:app", ['must be "module:variable"']),
        ("wsgi", "main:make_app(1)", ['must be "module:variable"']),
        ("wsgi", "mian:app", ["there is no module 'mian'", "{folder}/mian.py", "did you mean main?", "working_dir"]),
        ("wsgi", "package.web:app", ["there is no module 'package.web'", "{folder}/package/web.py"]),
        ("wsgi", "packages.sub.web:app", ["there is no module 'packages'", "did you mean package?"]),
        ("wsgi", "web-shap:app", ["there is no module 'web-shap'", "did you mean web-shop?"]),
        ("wsgi", "main:my-app", ['must be "module:variable"']),
        (
            "wsgi",
            "json.wsgi:app",
            [
                "there is no module 'json.wsgi': {folder}/json/wsgi.py is hidden",
                f"'json' is another module, {json.__file__} (",
            ],
        ),
        ("wsgi", "twice.web:app", ["{folder}/twice/web is hidden", "'twice' is another module, {folder}/twice.py"]),
        ("wsgi", "main:ap", ["main ({folder}/main.py) has no 'ap'", "did you mean app"]),
        ("wsgi", "main:Holder.iner.app", ["main.Holder ({folder}/main.py) has no 'iner'", "did you mean inner?"]),
        ("wsgi", "package:application", ["package ({folder}/package/__init__.py) has no 'application'"]),
        ("wsgi", "main:number", ["number in {folder}/main.py is no app but an object of type builtins.int"]),
        ("wsgi", "main:proxy", ["proxy in {folder}/main.py is no app but an object of type main.Proxy"]),
        ("wsgi", "main:nothing", ["nothing in {folder}/main.py is no app but None"]),
        ("wsgi", "package.sub:web", ["package.sub.web is a module", '"package.sub.web:app"']),
        ("wsgi", "package:path", ["path in {folder}/package/__init__.py is no app but the module"]),
        ("wsgi", "main:number()", ["number in {folder}/main.py is no function but an object of type builtins.int"]),
        ("wsgi", "main:make_nothing()", ["make_nothing() in {folder}/main.py is no app but None"]),
        ("wsgi", "main:make_app", ["takes no arguments", '"make_app()"']),
        ("wsgi", "main:async_app", ["{folder}/main.py is an ASGI app: use module_asgi"]),
        ("wsgi", "main:async_call", ["is an ASGI app: use module_asgi"]),
        ("wsgi", "main:async_partial", ["is an ASGI app: use module_asgi"]),
        ("wsgi", "main:plain_asgi", ["is an ASGI app: use module_asgi"]),
        ("wsgi", "main:four", ["does not take (environ, start_response)"]),
        ("asgi", "main:app", ["{folder}/main.py is a WSGI app: use module_wsgi"]),
        ("asgi", "main:call", ["is a WSGI app: use module_wsgi"]),
        ("asgi", "main:partial", ["is a WSGI app: use module_wsgi"]),
        ("asgi", "main:OldAsgi", ["ASGI 2 apps are not supported"]),
        ("asgi", "main:old_asgi", ["ASGI 2 apps are not supported"]),
        ("asgi", "main:make_app", ["takes no arguments", '"make_app()"']),
        ("asgi", "main:four", ["does not take (scope, receive, send)"]),
    ],
)
def test_a_wrong_target_is_one_line_that_names_the_file_and_the_fix(
    launch: Launch, folder: Path, interface: str, target: str, parts: list[str]
) -> None:
    message, trace = launch(target, interface, working_dir=str(folder)).failure()
    assert message.startswith(f"module_{interface} '{target}': ")
    assert "\n" not in message
    for part in parts:
        assert part.format(folder=folder) in message
    assert trace == ""


def test_a_missing_module_is_looked_for_in_working_dir_whatever_other_threads_have_made_of_sys_path(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path / "other"), *sys.path])
    with pytest.raises(StartError) as raised:
        importer.load(settings("mian:app", "wsgi", working_dir=str(folder), packages=()))
    assert f"neither {folder}/mian.py nor" in str(raised.value)


@pytest.mark.parametrize(
    ("target", "message", "in_trace"),
    [
        (
            "nested:app",
            "importing nested raised ModuleNotFoundError: No module named 'not_installed_anywhere'",
            "line 1",
        ),
        (
            "nested_same:app",
            "importing nested_same raised ModuleNotFoundError: No module named 'nested_same.more'",
            "line 1",
        ),
        ("broken:app", "importing broken raised SyntaxError: ", "def app(:"),
        ("raises:app", "importing raises raised ValueError: no database", "raises.py"),
        ("exits:app", "importing exits raised SystemExit: no licence", "exits.py"),
        ("package.deep:app", "importing package.deep raised ImportError: cannot import name 'missing_part'", "deep.py"),
        ("main:make_failure()", "make_failure() raised ValueError: no settings", "in make_failure"),
        ("main:proxy.broken", "main.proxy.broken raised RuntimeError: no context", "in broken"),
        ("main:proxy.app", "main.proxy.app raised KeyError: 'app'", "in __getattr__"),
        ("surrogate:app", "importing surrogate raised ValueError: \\udc80", "surrogate.py"),
        ("stubborn:app", "importing stubborn raised E: <no message: its __str__ raises>", "stubborn.py"),
    ],
)
def test_an_error_of_the_users_own_passes_with_its_traceback(
    launch: Launch, folder: Path, target: str, message: str, in_trace: str
) -> None:
    got, trace = launch(target, "wsgi", working_dir=str(folder)).failure()
    assert got.startswith(f"module_wsgi '{target}': {message}")
    assert in_trace in trace
    assert "caddysnake" not in trace
    assert "importlib" not in trace


def test_the_message_of_a_missing_package_names_the_interpreter(launch: Launch, folder: Path) -> None:
    worker = launch("nested:app", "wsgi", working_dir=str(folder))
    assert str(worker.process.args[0]) in worker.failure()[0]  # type: ignore[index]


def test_a_huge_message_is_cut(launch: Launch, folder: Path) -> None:
    message, trace = launch("huge:app", "wsgi", working_dir=str(folder)).failure()
    assert len(message) < 10_000
    assert len(trace) < 200_000
