"""Web sites become knowledge bases: what is read, what is left out, and what is never reached."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from agentflow import AgentFlow
from agentflow.types.knowledge_bases import IngestJob
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

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path in ("/loop", "/out"):
            self.send_response(302)
            self.send_header("location", "/loop" if self.path == "/loop" else self.outside)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        body = b"x" * (11 * 1024 * 1024) if self.path == "/big" else PAGES.get(self.path, "").encode()
        self.send_response(200 if body else 404)
        self.send_header("content-type", "text/plain" if self.path == "/robots.txt" else "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            return

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
