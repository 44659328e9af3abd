"""A small library in Django, with its admin."""
