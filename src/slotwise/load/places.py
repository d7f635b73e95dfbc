"""Lines where one connection carries many requests: places on a few links, which are made as they are needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar


class Link(Protocol):
    """A connection that carries many requests at once."""

    @property
    def is_open(self) -> bool:
        """Whether it can be used; one that is lost stays so."""


K = TypeVar("K", bound=Link)


class Place(Generic[K]):
    """One place on a link; what is sent over it is its subclass's."""

    def __init__(self, link: K, put_back: Callable[[K], None]) -> None:
        self._link = link
        self._put_back = put_back
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._link.is_open and not self._is_closed

    def close(self) -> None:
        """Give the place back; what is under way is taken back."""
        if not self._is_closed:
            self._is_closed = True
            self._put_back(self._link)
            self._take_back()

    def _take_back(self) -> None:
        """What is under way ends without a reply."""
        raise NotImplementedError


class Closable(Protocol):
    """What can be given back."""

    def close(self) -> None:
        """Give it back."""


P = TypeVar("P", bound=Closable)


class Links(Generic[K]):
    """The links of one way, and how many of their places are taken."""

    def __init__(self, make: Callable[[], Awaitable[K]], places: Callable[[K], int]) -> None:
        """`make` opens a link, and `places` says how many it has."""
        self._make = make
        self._places = places
        self._taken: Counter[K] = Counter()

    def __iter__(self) -> Iterator[K]:
        return iter(self._taken)

    def forget_lost(self) -> Iterable[K]:
        """The links that are lost, which are known no more."""
        lost = [link for link in self._taken if not link.is_open]
        for link in lost:
            del self._taken[link]
        return lost

    async def lines(self, count: int, line: Callable[[K, Callable[[K], None]], P]) -> list[P]:
        """So many places, all or none. Raises what making a link does."""
        made: list[P] = []
        try:
            while len(made) < count:
                link = await self._free()
                self._taken[link] += 1
                made.append(line(link, self._put_back))
        except BaseException:
            for one in made:
                one.close()
            raise
        return made

    async def _free(self) -> K:
        """A link with a place left; a new one if need be."""
        for link, taken in self._taken.items():
            if taken < self._places(link):
                return link
        return await self._make()

    def _put_back(self, link: K) -> None:
        if link in self._taken:  # else it was lost meanwhile
            self._taken[link] -= 1
