"""A guest book in Flask, with SQLite as its database. DATA names the folder of the database (default: data)."""

import os
import platform
import sqlite3
from contextlib import closing
from pathlib import Path

from flask import Flask, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

DATA = Path(os.environ.get("DATA", "data"))
app = Flask(__name__)


def database() -> sqlite3.Connection:
    """Open the guest book."""
    DATA.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(DATA / "guests.sqlite3")
    connection.execute("CREATE TABLE IF NOT EXISTS guests (name TEXT NOT NULL, signed TEXT DEFAULT CURRENT_TIMESTAMP)")
    return connection


@app.get("/")
def index() -> str:
    """The guest book, and who made the page."""
    with closing(database()) as connection:
        guests = connection.execute("SELECT name, signed FROM guests ORDER BY rowid DESC LIMIT 10").fetchall()
    return render_template("index.html", guests=guests, pid=os.getpid(), python=platform.python_version())


@app.post("/sign")
def sign() -> Response:
    """Sign the guest book."""
    name = request.form["name"].strip()[:40]
    if name:
        with closing(database()) as connection, connection:
            connection.execute("INSERT INTO guests (name) VALUES (?)", (name,))
    return redirect(url_for("index"), 303)
