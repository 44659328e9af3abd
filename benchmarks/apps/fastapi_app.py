"""The first example of FastAPI's own tutorial."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def hello() -> dict[str, str]:
    """Answer with a small JSON object."""
    return {"message": "Hello, world!"}
