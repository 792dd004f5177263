"""A backend that trusts the local issuer, with nobody let in without a token."""

from collections.abc import Iterator

import pytest
from agentflow_server.testing import LocalServer, local_server

from tests.security.issuer import AUDIENCE, LocalIssuer, local_issuer


@pytest.fixture(scope="session")
def issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as running:
        yield running


@pytest.fixture(scope="session")
def guarded(issuer: LocalIssuer) -> Iterator[LocalServer]:
    """A backend behind the issuer."""
    with local_server(dev_auth_bypass=False, auth0_domain=issuer.url, auth0_audience=AUDIENCE) as running:
        yield running
