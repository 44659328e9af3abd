"""What the library holds."""

from django.db import models


class Book(models.Model):
    """A book."""

    title = models.CharField(max_length=100)
    author = models.CharField(max_length=100)
    lent = models.BooleanField(default=False)

    class Meta:
        ordering = ("title",)

    def __str__(self) -> str:
        return f"{self.title}, {self.author}"
