"""The first example of Flask's own quickstart."""

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello() -> str:
    """Answer with one short line."""
    return "Hello, world!"
