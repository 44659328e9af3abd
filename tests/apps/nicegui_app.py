"""A chat in NiceGUI, whose pages do everything over a WebSocket; see test_websocket_apps.py."""

from fastapi import FastAPI
from nicegui import ui

app = FastAPI()
said: list[str] = []


@ui.refreshable
def history() -> None:
    for text in said:
        ui.label(text).classes("said")


@ui.page("/")
def index() -> None:
    text = ui.input("Say").classes("say")

    def send() -> None:
        said.append(text.value)
        text.value = ""
        history.refresh()  # in every browser

    ui.button("Send", on_click=send).classes("send")
    history()


ui.run_with(app)
