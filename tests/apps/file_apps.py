"""Files as Flask, Django and Starlette send them; see conformance/test_files.py.

/file?PATH sends a file, /cpu tells the CPU time in seconds that this process has used.
"""

import time

import django
import flask
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse as StarletteFileResponse
from starlette.responses import PlainTextResponse
from starlette.routing import Route

flask_app = flask.Flask(__name__)


@flask_app.get("/file")
def flask_file() -> flask.Response:
    """send_file()."""
    return flask.send_file(flask.request.query_string.decode())


@flask_app.get("/cpu")
def flask_cpu() -> str:
    """CPU time."""
    return str(time.process_time())


def django_file(request: HttpRequest) -> FileResponse:
    """A FileResponse."""
    return FileResponse(open(request.META["QUERY_STRING"], "rb"))


def django_cpu(request: HttpRequest) -> HttpResponse:
    """CPU time."""
    return HttpResponse(str(time.process_time()))


urlpatterns = [path("file", django_file), path("cpu", django_cpu)]

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="test", USE_TZ=True)
django.setup()
django_app = get_wsgi_application()


async def starlette_file(request: Request) -> StarletteFileResponse:
    """A FileResponse."""
    return StarletteFileResponse(request.url.query)


async def starlette_cpu(request: Request) -> PlainTextResponse:
    """CPU time."""
    return PlainTextResponse(str(time.process_time()))


starlette_app = Starlette(routes=[Route("/file", starlette_file), Route("/cpu", starlette_cpu)])
