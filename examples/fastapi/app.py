"""A price list in FastAPI, kept in memory by each worker."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field


class Product(BaseModel):
    """Something that can be bought."""

    name: str = Field(min_length=1, max_length=40)
    cents: int = Field(gt=0, description="Price in cents")


products: dict[int, Product] = {}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Fill the list before the first request."""
    products.update({1: Product(name="Tea", cents=350), 2: Product(name="Cake", cents=480)})
    yield
    products.clear()


app = FastAPI(title="Price list", lifespan=lifespan)


@app.get("/products")
async def list_products() -> dict[int, Product]:
    """All products by number."""
    return products


@app.get("/products/{number}")
async def get_product(number: int) -> Product:
    """One product."""
    if number not in products:
        raise HTTPException(404, f"There is no product {number}.")
    return products[number]


@app.get("/total")
async def total(number: int, count: int = 1) -> dict[str, int]:
    """What `count` of one product cost, in cents."""
    product = await get_product(number)
    return {"cents": product.cents * count}


@app.get("/countdown")
async def countdown(seconds: int = 5) -> StreamingResponse:
    """One line for each second; each arrives when it is made."""

    async def lines() -> AsyncIterator[str]:
        for left in range(min(seconds, 60), 0, -1):
            yield f"{left}\n"
            await asyncio.sleep(1)
        yield f"{datetime.now(timezone.utc):%H:%M:%S} UTC, worker process {os.getpid()}\n"

    return StreamingResponse(lines(), media_type="text/plain", headers={"X-Content-Type-Options": "nosniff"})
