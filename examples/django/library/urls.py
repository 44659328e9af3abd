"""The pages."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path

from .models import Book


def index(request: HttpRequest) -> HttpResponse:
    """All books."""
    return render(request, "library/index.html", {"books": Book.objects.all()})


urlpatterns = [path("", index), path("admin/", admin.site.urls)]
