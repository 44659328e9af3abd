"""An ASGI app that can be imported only while the event loop runs."""

import asyncio

from imports_common import answer

app = answer(b"within", asyncio.get_running_loop())
