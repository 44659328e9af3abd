"""Django projects in one interpreter, which can have one: settings, models and URLs are Django's own, and stay."""

from pathlib import Path

import pytest

from support.check import Servers
from support.thread_apps import two_apps

pytestmark = pytest.mark.only_thread

SETTINGS = """
SECRET_KEY = {name!r}
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "{name}.urls"
"""

URLS = """
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse("the site of " + settings.SECRET_KEY))]
"""

# As `django-admin startproject` makes it.
START = """
import os
from django.core.{kind} import get_{kind}_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{name}.settings")
application = get_{kind}_application()
"""


def project(folder: Path, name: str, *settings: str, kind: str = "wsgi") -> str:
    """A project, and a handler that serves it."""
    package = folder / name
    package.mkdir(parents=True, exist_ok=True)
    (package / "settings.py").write_text(SETTINGS.format(name=name))
    (package / "urls.py").write_text(URLS)
    for each in ("wsgi", "asgi"):
        (package / f"{each}.py").write_text(START.format(kind=each, name=name))
    lines = "\n".join((f"module_{kind} {name}.{kind}:application", f"working_dir {folder}", *settings))
    return f"python {{\nimport interpreter\n{lines}\n}}\n"


# A web app that uses some of Django, and no project of it.
BORROWS = """
from django.utils.text import slugify


def application(environ, start_response):
    start_response("200 OK", [])
    return [slugify("The Blog").encode()]
"""


@pytest.mark.expect_errors("Django already has the settings")
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_second_project_is_refused(serve: Servers, tmp_path: Path, kind: str) -> None:
    shop, blog = project(tmp_path / "a", "shop", kind=kind), project(tmp_path / "b", "blog", kind=kind)
    server = serve(shop)
    assert server.get("/").text == "the site of shop"
    for site in (two_apps(shop, blog), blog):
        result = server.reload(site)
        assert result.returncode == 1
        assert "blog." in result.stderr and "'shop.settings'" in result.stderr
        assert "workers_runtime process" in result.stderr
    assert server.get("/").text == "the site of shop"


@pytest.mark.expect_errors("Django already has the settings")
def test_two_projects_at_once_are_refused(serve: Servers, tmp_path: Path) -> None:
    server = serve.new()
    server.write_caddyfile(two_apps(project(tmp_path / "a", "shop"), project(tmp_path / "b", "blog")))
    server.launch("run", "--config", str(server.caddyfile))
    assert server.wait_exit() == 1
    assert "would serve its site" in server.log.path.read_text()


def test_a_project_may_be_two_apps_and_others_may_use_django(serve: Servers, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "blog.py").write_text(BORROWS)
    shop = project(tmp_path / "a", "shop")
    both = two_apps(shop, project(tmp_path / "a", "shop", kind="asgi"))
    blog = f"python {{\nmodule_wsgi blog:application\nimport interpreter\nworking_dir {tmp_path / 'b'}\n}}\n"
    server = serve(f"{both}handle {{\n{blog}}}\n")
    assert [server.get(path).text for path in ("/first/", "/second/")] == ["the site of shop"] * 2
    assert server.get("/").text == "the-blog"


def test_settings_that_the_configuration_names_are_meant(serve: Servers, tmp_path: Path) -> None:
    given = "env_var DJANGO_SETTINGS_MODULE shop.settings"
    shop, blog = (project(tmp_path / name, name, given) for name in ("shop", "blog"))
    server = serve(two_apps(shop, blog))
    assert [server.get(path).text for path in ("/first/", "/second/")] == ["the site of shop"] * 2


def test_a_reload_says_what_it_leaves(serve: Servers, tmp_path: Path) -> None:
    server = serve(project(tmp_path / "a", "shop"))

    def said() -> int:
        return len([entry for entry in server.log.entries() if entry["msg"].startswith("django keeps")])

    assert said() == 0
    assert server.command("python-reload", "--config", str(server.caddyfile)).returncode == 0
    assert said() == 1
