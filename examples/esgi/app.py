"""A chat room over ESGI: one page, and a WebSocket for each visitor. `application` is what the Caddyfile names."""

from html import escape
from typing import Any

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Chat room</title>
<h1>Chat room</h1>
<form><input name="line" autocomplete="off" autofocus placeholder="Say something"></form>
<ul></ul>
<script>
  const socket = new WebSocket(location.href.replace(/^http/, "ws") + "room");
  socket.onmessage = (event) => {
    const item = document.createElement("li");
    item.innerHTML = event.data;
    document.querySelector("ul").append(item);
  };
  document.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    socket.send(event.target.line.value);
    event.target.reset();
  };
</script>
"""

# With one worker all visitors are in this process, and greenlets need no lock: they change hands only where they wait.
visitors: set[Any] = set()


def application(scope: dict[str, Any], protocol: Any) -> None:
    """Answer a request, or keep a visitor company until the WebSocket is closed."""
    if scope["proto"] == "ws":
        chat(protocol.accept())
    elif scope["path"] == "/":
        protocol.response_str(200, [("content-type", "text/html; charset=utf-8")], PAGE)
    else:
        protocol.response_str(404, [("content-type", "text/plain")], "There is nothing here.\n")


def chat(visitor: Any) -> None:
    """Pass on what a visitor says to all."""
    visitors.add(visitor)
    try:
        while (message := visitor.receive()).kind != 0:
            say(escape(str(message.data)))
    finally:
        visitors.discard(visitor)


def say(line: str) -> None:
    """Send a line to all who are still here."""
    for visitor in list(visitors):
        try:
            visitor.send_str(line)
        except OSError:  # gone; its own greenlet is about to notice
            visitors.discard(visitor)
