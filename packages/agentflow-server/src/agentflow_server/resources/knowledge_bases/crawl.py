"""Reads the pages of a web site: same site, robots.txt, a pause between requests, bounds on depth, pages and bytes.

Called by the job that makes a base from an address. Addresses of private networks are refused where the connection is
opened, after every redirect (`kit.outbound`). Sources: RFC 9309 (robots.txt), RFC 3986 (addresses).
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import SplitResult, urldefrag, urljoin, urlsplit, urlunsplit

import httpx2
from protego import Protego

from agentflow_server.kit.outbound import ForbiddenAddressError, outbound_client

AGENT = "AgentFlowBot"
_PAGE_BYTES = 10 * 1024 * 1024
_LINK_BYTES = 2 * 1024 * 1024
_ROBOTS_BYTES = 512 * 1024
_MAX_PAUSE = 10.0
_PORTS = {"http": ":80", "https": ":443"}
_MAX_REDIRECTS = 5
_PAGE_SECONDS = 60.0
_READABLE = ("text/", "application/xhtml", "application/pdf", "application/json", "application/xml")


@dataclass(frozen=True, slots=True)
class WebPage:
    """A page as it came."""

    url: str
    media_type: str
    content: bytes


@dataclass(slots=True)
class CrawlReport:
    """What could not be read, and why: (address, reason)."""

    skipped: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


class Crawler:
    """Crawls one site.

    Args:
        pause: seconds between two requests; robots.txt may ask for more, up to ten.
    """

    def __init__(self, *, allow_private: bool, pause: float = 0.5) -> None:
        self._allow_private = allow_private
        self._pause = pause

    async def pages(
        self, start: str, *, max_depth: int, max_pages: int, report: CrawlReport
    ) -> AsyncGenerator[WebPage, None]:
        """The pages that can be reached from the first, breadth first.

        Args:
            max_depth: links followed from the first page. report: gets what was left out.
        """
        async with outbound_client(allow_private=self._allow_private) as client:
            client.headers["User-Agent"] = f"{AGENT}/1.0"
            site = _Site(client, self._pause, report)
            waiting = deque([(_normal(start), 0)])
            seen = {_normal(start)}
            taken: set[str] = set()
            while waiting and len(taken) < max_pages:
                url, depth = waiting.popleft()
                page = await site.fetch(url) if url not in taken else None
                if page is None or page.url in taken:  # several addresses may lead to one page
                    continue
                taken.add(page.url)
                yield page
                if depth < max_depth and "html" in page.media_type:
                    for link in await asyncio.to_thread(_links, page):
                        if link not in seen and _same_site(link, start) and len(seen) < 50 * max_pages:
                            seen.add(link)
                            waiting.append((link, depth + 1))


class _Site:
    """Requests to one site, one after another."""

    def __init__(self, client: httpx2.AsyncClient, pause: float, report: CrawlReport) -> None:
        self._client = client
        self._pause = pause
        self._report = report
        self._rules: dict[str, Protego] = {}
        self._asked = False

    async def fetch(self, url: str) -> WebPage | None:
        """A page; None if it may not or cannot be read."""
        origin = url
        for _ in range(_MAX_REDIRECTS + 1):
            try:
                rules = await self._robots(url)
                if not rules.can_fetch(url, AGENT):
                    return self._skip(origin, "robots.txt does not allow it")
                answer = await self._get(url, _PAGE_BYTES, rules.crawl_delay(AGENT))
            except ForbiddenAddressError as error:
                return self._skip(origin, str(error))
            except TimeoutError:
                return self._skip(origin, f"takes longer than {_PAGE_SECONDS:g} s")
            except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
                return self._skip(origin, f"cannot be fetched: {error or type(error).__name__}")
            if isinstance(answer, str):
                url = _normal(urljoin(url, answer))
                if not _same_site(url, origin):
                    return self._skip(origin, f"leads to another site, {url}")
                continue
            if (problem := _problem(answer)) is not None:
                return self._skip(origin, problem)
            return WebPage(url, answer.media_type, answer.content)
        return self._skip(origin, "redirects without end")

    def _skip(self, url: str, reason: str) -> None:
        self._report.skipped.append((url, reason))

    async def _robots(self, url: str) -> Any:
        """The rules of an address's host; a missing file allows everything, a failing one nothing (RFC 9309, 2.3)."""
        address = urlsplit(url)
        host = f"{address.scheme}://{address.netloc}"
        if host not in self._rules:
            text, place = "", f"{host}/robots.txt"
            for _ in range(_MAX_REDIRECTS + 1):
                answer = await self._get(place, _ROBOTS_BYTES, None)
                if isinstance(answer, str):
                    place = urljoin(place, answer)
                    continue
                text = "User-agent: *\nDisallow: /" if answer.status in (429, *range(500, 600)) else ""
                if answer.status == 200:
                    text = answer.content.decode("utf-8", errors="replace")
                break
            self._rules[host] = Protego.parse(text)
        return self._rules[host]

    async def _get(self, url: str, limit: int, delay: float | None) -> "str | _Answer":
        """Where a redirect leads, or what came; not more of it than the limit.

        Raises:
            TimeoutError: it does not come to an end.
        """
        if self._asked:
            await asyncio.sleep(min(max(self._pause, delay or 0.0), _MAX_PAUSE))
        self._asked = True
        async with asyncio.timeout(_PAGE_SECONDS), self._client.stream("GET", url) as response:
            if response.is_redirect and "location" in response.headers:
                return response.headers["location"]
            media_type = response.headers.get("content-type", "").split(";")[0].strip().lower()
            found = bytearray()
            async for piece in response.aiter_bytes():
                found += piece
                if len(found) > limit:
                    return _Answer(response.status_code, media_type, bytes(found[:limit]), whole=False)
            return _Answer(response.status_code, media_type, bytes(found))


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a server sent; `whole` unless it was cut off at the limit."""

    status: int
    media_type: str
    content: bytes
    whole: bool = True


def _problem(answer: _Answer) -> str | None:
    """Why a page is not taken."""
    if answer.status != 200:
        return f"the site answered {answer.status}"
    if not answer.whole:
        return f"is larger than {_PAGE_BYTES:,} bytes"
    if not answer.media_type.startswith(_READABLE):
        return f"{answer.media_type or 'its type'} is not read"
    return None


class _Links(HTMLParser):
    """The addresses that a page links to, and the one that they are relative to."""

    def __init__(self, url: str) -> None:
        super().__init__(convert_charrefs=True)
        self.base = url
        self.found: list[str] = []
        self._url = url

    def handle_starttag(self, tag: str, attrs: "list[tuple[str, str | None]]") -> None:
        given = dict(attrs)
        if tag == "base" and given.get("href") and self.base == self._url:
            self.base = urljoin(self._url, given["href"] or "")
        if tag == "a" and given.get("href") and "nofollow" not in (given.get("rel") or ""):
            self.found.append(given["href"] or "")


def _links(page: WebPage) -> list[str]:
    reader = _Links(page.url)
    reader.feed(page.content[:_LINK_BYTES].decode("utf-8", errors="replace"))
    found: list[str] = []
    for target in reader.found:
        try:
            url = _normal(urljoin(reader.base, target))
        except ValueError:
            continue
        if url.startswith(("http://", "https://")):
            found.append(url)
    return list(dict.fromkeys(found))


def _normal(url: str) -> str:
    place = urlsplit(urldefrag(url.strip())[0])
    scheme, host = place.scheme.lower(), place.netloc.lower()
    host = host.removesuffix(_PORTS.get(scheme, ":"))
    return urlunsplit(SplitResult(scheme, host, place.path or "/", place.query, ""))


def _same_site(url: str, start: str) -> bool:
    one, other = urlsplit(_normal(url)), urlsplit(_normal(start))
    return one.netloc.removeprefix("www.") == other.netloc.removeprefix("www.")
