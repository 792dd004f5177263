"""An issuer of this test's own on loopback: quick, and willing to sign anything. The real one is in tests/oidc."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwk, jws

AUDIENCE = "https://agentflow.test"
TENANT = "https://agentflow.ai/tenant"


class LocalIssuer:
    """Signs tokens, and publishes its keys.

    Attributes:
        documents: what it answers by path; a value that is a function is called with the Authorization header.
        asked: the paths it was asked for.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.key = jwk.RSAKey.generate_key(2048, {"kid": "first", "use": "sig"})
        self.asked: list[str] = []
        self.documents: dict[str, Any] = {
            "/.well-known/openid-configuration": {
                "issuer": url,
                "jwks_uri": f"{url}/jwks",
                "userinfo_endpoint": f"{url}/userinfo",
            },
            "/jwks": {"keys": [self.key.as_dict(private=False)]},
        }

    def publish(self, *keys: Any) -> None:
        """Replace the published keys."""
        self.documents["/jwks"] = {"keys": [key.as_dict(private=False) for key in keys]}

    def sign(self, claims: Mapping[str, Any], *, header: Mapping[str, Any] | None = None, key: Any = None) -> str:
        """A compact JSON Web Signature over any claims, with any key."""
        head = {"alg": "RS256", "kid": "first", "typ": "at+jwt", **(header or {})}
        body = json.dumps(claims).encode()
        return jws.serialize_compact(head, body, key or self.key, algorithms=[head["alg"]])

    def confused(self, algorithm: str) -> str:
        """A token signed with the public key as if it were a shared secret (RFC 8725, section 2.1)."""
        said = f"{_encoded({'alg': algorithm, 'kid': 'first'})}.{_encoded(self.claims())}"
        digest = hmac.digest(self.key.as_pem(private=False), said.encode(), hashlib.sha256)
        return f"{said}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"

    def unsigned(self, header: Mapping[str, Any], signature: str = "") -> str:
        """A token with any header, that nobody has signed."""
        return f"{_encoded(header)}.{_encoded(self.claims())}.{signature}"

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Claims of a person's token that holds; None takes one away."""
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": AUDIENCE, "sub": "alice", "exp": now + 600, "iat": now, TENANT: "acme",
            "scope": "openid",
        }  # fmt: skip
        return {name: value for name, value in {**claims, **changed}.items() if value is not None}

    def person(self, **changed: Any) -> str:
        """A person's token."""
        return self.sign(self.claims(**changed))

    def machine(self, scope: str, **changed: Any) -> str:
        """A machine's token."""
        return self.sign(self.claims(**{"sub": "robot", "client_id": "robot", "scope": scope, **changed}))


def _encoded(value: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@contextmanager
def local_issuer() -> Generator[LocalIssuer]:
    """Start it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            document = issuer.documents.get(self.path)
            if callable(document):
                document = document(self.headers.get("Authorization"))
            body = json.dumps(document).encode()
            self.send_response(404 if document is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = LocalIssuer(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
