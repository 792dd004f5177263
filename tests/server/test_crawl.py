"""Web sites become knowledge bases: what is read, what is left out, and what is never reached."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from agentflow import AgentFlow
from agentflow.errors import ValidationError
from agentflow.types.knowledge_bases import IngestJob
from agentflow_server.resources.knowledge_bases import crawl as crawl_module
from agentflow_server.testing import local_server


def html(title: str, body: str, *links: str) -> str:
    anchors = "".join(f'<a href="{link}">more</a>' for link in links)
    text = f"{body} It is told here at some length, so that there is something to be read on this page."
    return f"<html><head><title>{title}</title></head><body><h1>{title}</h1><p>{text}</p>{anchors}</body></html>"


PAGES = {
    "/": html(
        "Home", "The heron is our bird.", "/a", "/private/x", "/b#part", "http://127.0.0.1:1/else", "/loop", "/big"
    ),
    "/a": html("A", "Pumps need oil.", "/deep", "/", "mailto:x@y.z", "/gone"),
    "/b": html("B", "Cakes need sugar.", "/a"),
    "/deep": html("Deep", "Mines are deep.", "/deeper"),
    "/deeper": html("Deeper", "Too deep to be read."),
    "/private/x": html("Private", "The secret is 42."),
    "/robots.txt": "User-agent: *\nDisallow: /private/\n",
}


class Site(BaseHTTPRequestHandler):
    """A small site that notes what was asked for."""

    asked: list[str] = []  # noqa: RUF012 - shared by the requests of a test
    outside = ""
    pages = PAGES
    moved: dict[str, str] = {}  # noqa: RUF012 - as above
    status = 404

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/drip":
            self.drip()
            return
        moved = {"/loop": "/loop", "/out": self.outside, **self.moved}
        if self.path in moved:
            self.send_response(302)
            self.send_header("location", moved[self.path])
            self.send_header("content-length", "0")
            self.end_headers()
            return
        body = b"x" * (11 * 1024 * 1024) if self.path == "/big" else self.pages.get(self.path, "").encode()
        self.send_response(200 if body else self.status)
        self.send_header("content-type", "text/plain" if self.path == "/robots.txt" else "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            return

    def drip(self) -> None:
        """A page that never ends."""
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"<p>and so on</p>")
                time.sleep(0.02)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as inherited
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    Site.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def crawler() -> Iterator[AgentFlow]:
    with local_server(allow_private_addresses=True, crawl_pause_seconds=0) as server, server.client() as client:
        yield client


def crawl(client: AgentFlow, url: str, **settings: Any) -> IngestJob:
    made = client.knowledge_bases.create_from_url(name="Site", website_url=url, **settings)
    assert made.status == "processing"
    assert made.job_id
    return client.knowledge_bases.wait(made.job_id, timeout=60)


def test_a_site_is_read(crawler: AgentFlow, site: str) -> None:
    job = crawl(crawler, site, max_crawl_depth=2, max_crawl_pages=20)
    assert job.status == "completed"
    assert sorted(file.name.removeprefix(site) for file in job.files) == ["/", "/a", "/b", "/deep"]
    assert "/private/x" not in Site.asked
    assert "/deeper" not in Site.asked
    reasons = "\n".join(job.skipped)
    for reason in ("robots.txt does not allow it", "redirects without end", "answered 404", "larger than"):
        assert reason in reasons
    found = crawler.knowledge_bases.search(job.kb_id, query="what do pumps need?", limit=1).documents[0]
    assert found.source_file == f"{site}/a"
    assert found.metadata["url"] == f"{site}/a"
    base = crawler.knowledge_bases.retrieve(job.kb_id)
    assert (base.source_type, base.website_url, base.file_count) == ("url", site, 4)


def test_depth_and_pages_are_bounds(crawler: AgentFlow, site: str) -> None:
    assert len(crawl(crawler, site, max_crawl_depth=0).files) == 1
    assert len(crawl(crawler, site, max_crawl_depth=5, max_crawl_pages=2).files) == 2


def test_a_page_is_read_once_however_it_is_reached(
    crawler: AgentFlow, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {
        "/": html("Home", "The heron is our bird.", "/old", "/docs/new", "/docs/", "/#top", f"{site}"),
        "/docs/new": html("New", "Pumps need oil."),
        "/docs/": '<base href="/deep/">' + html("Docs", "Cakes need sugar.", "page"),
        "/deep/page": html("Deep", "Mines are deep."),
        "/docs/page": html("Wrong", "Not there."),
    }
    monkeypatch.setattr(Site, "pages", pages)
    monkeypatch.setattr(Site, "moved", {"/old": "/docs/new"})
    job = crawl(crawler, site, max_crawl_depth=3)
    assert sorted(file.name.removeprefix(site) for file in job.files) == ["/", "/deep/page", "/docs/", "/docs/new"]
    assert {file.status for file in job.files} == {"completed"}
    again = crawl(crawler, f"{site}/old", max_crawl_pages=1)
    assert [file.name for file in again.files] == [f"{site}/docs/new"]


def test_rules_that_have_moved_are_followed(crawler: AgentFlow, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Site, "moved", {"/robots.txt": "/rules", "/rules": "/rules.txt"})
    monkeypatch.setattr(Site, "pages", {**PAGES, "/rules.txt": "User-agent: *\nDisallow: /a\n"})
    job = crawl(crawler, site, max_crawl_depth=1)
    assert "/a" not in Site.asked
    assert "/b" in Site.asked
    assert f"{site}/a: robots.txt does not allow it" in job.skipped


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_site_whose_rules_fail_is_not_read(
    crawler: AgentFlow, site: str, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(Site, "pages", {"/": PAGES["/"]})
    monkeypatch.setattr(Site, "status", status)
    job = crawl(crawler, site)
    assert (job.status, Site.asked) == ("failed", ["/robots.txt"])
    assert "robots.txt" in (job.reason or "")


def test_a_page_without_end_is_left_out(crawler: AgentFlow, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crawl_module, "_PAGE_SECONDS", 1.0)
    monkeypatch.setattr(Site, "pages", {"/": html("Home", "The heron is our bird.", "/drip", "/b"), "/b": PAGES["/b"]})
    job = crawl(crawler, site, max_crawl_depth=1)
    assert [file.name.removeprefix(site) for file in job.files] == ["/", "/b"]
    assert f"{site}/drip: takes longer than 1 s" in job.skipped


@pytest.mark.parametrize(
    "url", ["http://", "https:///path", "http://user:secret@example.com/", "http://example.com:x/"]
)
def test_addresses_that_are_none_are_refused_at_once(client: AgentFlow, url: str) -> None:
    body = {"name": "Site", "website_url": url}
    with pytest.raises(ValidationError) as caught:
        client.request("POST", "/api/v1/knowledge-bases/create-from-url", body=body)
    assert caught.value.details[0]["field"] == "website_url"
    assert "secret" not in str(caught.value)


def test_private_addresses_are_refused(site: str) -> None:
    with local_server(crawl_pause_seconds=0) as server, server.client() as client:
        port = site.rsplit(":", 1)[1]
        for host in ("127.0.0.1", "localhost", "[::1]", "0x7f.1", "2130706433"):
            job = crawl(client, f"http://{host}:{port}/")
            assert job.status == "failed", host
            assert job.reason
        assert "private address" in (crawl(client, site).reason or "")
    assert Site.asked == []


def test_other_sites_are_not_followed(crawler: AgentFlow, site: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        Site.outside = f"http://127.0.0.1:{other.getsockname()[1]}/"
        job = crawl(crawler, f"{site}/out")
    assert job.status == "failed"
    assert "another site" in (job.reason or "")
