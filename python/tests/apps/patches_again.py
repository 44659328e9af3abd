"""Patches the process in another way than it has been."""

from gevent import monkey

monkey.patch_all(thread=False)
