"""The library in Django's admin."""

from django.contrib import admin

from .models import Book


@admin.register(Book)
class BookAdmin(admin.ModelAdmin):
    """Books, to be lent with one click."""

    list_display = ("title", "author", "lent")
    list_editable = ("lent",)
    search_fields = ("title", "author")
