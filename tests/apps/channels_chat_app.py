"""The chat in Django Channels; see test_websocket_apps.py."""

from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from channels.sessions import SessionMiddlewareStack
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

settings.configure(
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    INSTALLED_APPS=["channels", "django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
django = get_asgi_application()


class Room(AsyncJsonWebsocketConsumer):
    """Everyone in a room gets what one says."""

    async def connect(self) -> None:
        """Let those in who have logged in."""
        self.name = self.scope["session"].get("name")
        if self.name is None:
            await self.close()
            return
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.accept()
        await self.channel_layer.group_add(self.room, self.channel_name)
        host = dict(self.scope["headers"])[b"host"].decode()
        await self.send_json({"url": f"{self.scope['scheme']}://{host}{self.scope['path']}"})

    async def receive_json(self, content: dict[str, Any]) -> None:
        """Tell the others, or send away who asks for it."""
        if content["text"] == "/quit":
            await self.close(4000, "good bye")
        else:
            await self.say({"name": self.name, "text": content["text"]})

    async def disconnect(self, code: int) -> None:
        """Tell those who stay."""
        if self.name is not None:
            await self.channel_layer.group_discard(self.room, self.channel_name)
            await self.say({"left": self.name, "code": code})

    async def say(self, message: dict[str, Any]) -> None:
        """Send something to all in the room."""
        await self.channel_layer.group_send(self.room, {"type": "said", "message": message})

    async def said(self, event: dict[str, Any]) -> None:
        """What `say` calls in each consumer of the room."""
        await self.send_json(event["message"])


class Echo(WebsocketConsumer):
    """A plain class: its methods run on a thread of the worker."""

    def connect(self) -> None:
        """Agree on a subprotocol."""
        self.accept("echo.v2" if "echo.v2" in self.scope["subprotocols"] else None)

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send back what came."""
        self.send(text_data, bytes_data)


class Error(AsyncJsonWebsocketConsumer):
    """Fails as soon as it is connected."""

    async def connect(self) -> None:
        """Accept first."""
        await self.accept()
        raise RuntimeError("a bug in the app")


def login(request: HttpRequest, name: str) -> HttpResponse:
    request.session["name"] = name
    return HttpResponse("logged in")


urlpatterns = [path("login/<name>", login)]
sockets = [path("rooms/<room>", Room.as_asgi()), path("echo", Echo.as_asgi()), path("error", Error.as_asgi())]
app = ProtocolTypeRouter(
    {
        "http": django,
        "websocket": AllowedHostsOriginValidator(SessionMiddlewareStack(URLRouter(sockets))),
    }
)
