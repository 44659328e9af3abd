"""The common site in Django, and Django's admin, forms and static files; see test_frameworks.py and test_django.py.

DJANGO_DATA names the folder of the database and the collected static files. As a command this module is manage.py.
"""

import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from wsgiref.validate import validator

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse

import gates

DATA = Path(os.environ.get("DJANGO_DATA", "."))
WHITENOISE = ["whitenoise.middleware.WhiteNoiseMiddleware"] if os.environ.get("DJANGO_WHITENOISE") else []

settings.configure(
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATA / "db.sqlite3"}},
    STATIC_URL="static/",  # relative, so that it follows the path where the app is mounted
    STATIC_ROOT=DATA / "static",
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "root": {"handlers": ["console"], "level": "WARNING"},
    },
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        *WHITENOISE,
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
)
wsgi = get_wsgi_application()
asgi = get_asgi_application()
validated = validator(wsgi)

# What follows needs the settings.
from django import forms  # noqa: E402
from django.contrib import admin  # noqa: E402
from django.template import engines  # noqa: E402
from django.urls import path, reverse  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402


def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse("<h1>Hello from Django</h1>")


def item(request: HttpRequest, id: int) -> HttpResponse:
    return JsonResponse({"id": id, "color": request.GET.get("color")})


def name(request: HttpRequest, name: str) -> HttpResponse:
    return JsonResponse({"name": name})


def links(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"item": request.build_absolute_uri(reverse("item", kwargs={"id": 7}))})


@csrf_exempt
def form(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"name": request.POST["name"], "fruit": request.POST.getlist("fruit")})


@csrf_exempt
def login(request: HttpRequest) -> HttpResponse:
    response = HttpResponseRedirect(reverse("me"), status=303)
    response.set_cookie("name", request.POST["name"])
    return response


def me(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"Hello, {request.COOKIES['name']}")


@csrf_exempt
def upload(request: HttpRequest) -> HttpResponse:
    file = request.FILES["file"]
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    return JsonResponse({"filename": file.name, "size": file.size, "sha256": digest.hexdigest()})


@csrf_exempt
def echo_json(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"got": json.loads(request.body)})


def stream(request: HttpRequest, key: str) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        yield "first\n"
        gates.wait(key)
        yield "second\n"

    async def parts_async() -> AsyncIterator[str]:
        yield "first\n"
        await gates.wait_async(key)
        yield "second\n"

    content = parts_async() if isinstance(request, ASGIRequest) else parts()
    return StreamingHttpResponse(content, content_type="text/plain")


@csrf_exempt
def release(request: HttpRequest, key: str) -> HttpResponse:
    gates.open(key)
    return HttpResponse("released")


def error(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("a bug in the app")


class Greeting(forms.Form):
    """A form that Django protects against forged requests."""

    name = forms.CharField(max_length=10)


PAGE = """
<form method="post">{% csrf_token %}{{ form.as_p }}</form>
{% if greeted %}<p>Hello, {{ greeted }}!</p>{% endif %}
"""


def greet(request: HttpRequest) -> HttpResponse:
    form = Greeting(request.POST or None)
    greeted = form.cleaned_data["name"] if form.is_valid() else None
    template = engines["django"].from_string(PAGE)
    return HttpResponse(template.render({"form": form, "greeted": greeted}, request))


urlpatterns = [
    path("", index),
    path("items/<int:id>", item, name="item"),
    path("names/<name>", name),
    path("links", links),
    path("form", form),
    path("login", login),
    path("me", me, name="me"),
    path("upload", upload),
    path("json", echo_json),
    path("stream/<key>", stream),
    path("release/<key>", release),
    path("error", error),
    path("greet", greet),
    path("admin/", admin.site.urls),
]

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
