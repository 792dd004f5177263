"""Generated from agentflow/resources/pages.py by tools/sync_generator.py: do not edit.

A page of a listing that walks on by itself when it is iterated."""

from collections.abc import Iterator, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Page(Generic[T]):
    """One page: its `items`, and `total` of all that match. Iterating goes through this page and all that follow.

    Attributes:
        data: the page as the server sent it; its fields can be read from the page itself too.
    """

    def __init__(self, data: Any, field: str, fetch: "Callable[[int], Page[T]]") -> None:
        self.data = data
        self.items: list[T] = list(getattr(data, field))
        self.total: int = data.total
        self.limit: int = data.limit
        self.offset: int = data.offset
        self._field = field
        self._fetch = fetch

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.items if name == self._field else getattr(self.data, name)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def has_next(self) -> bool:
        """Whether another page follows."""
        return bool(self.items) and self.offset + len(self.items) < self.total

    def next_page(self) -> "Page[T] | None":
        """The page that follows, or None."""
        return self._fetch(self.offset + len(self.items)) if self.has_next else None

    def __iter__(self) -> Iterator[T]:
        page: Page[T] | None = self
        while page is not None:
            for item in page.items:
                yield item
            page = page.next_page()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.items)} of {self.total} {self._field}, from {self.offset})"
