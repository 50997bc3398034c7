"""Fixtures of the tests of the command line: recorded answers, and what asks for them."""

import pytest

from tests.cli_driver import piped
from tests.recorded_hub import recorded_hub

KEY = "key-of-the-tests-0123456789abcdef0123"


@pytest.fixture
def hub():
    """Recorded answers over HTTP, none yet but /health."""
    with recorded_hub() as found:
        yield found


@pytest.fixture
def there(hub):
    """The environment of a command that is to ask them."""
    return {"CRMHUB_URL": hub.url, "CRMHUB_KEY": KEY}


@pytest.fixture
def cli(there):
    """Runs a command in pipes; nothing that it writes holds the key or a traceback."""

    def run(*arguments, env=None, **more):
        done = piped(*arguments, env={**there, **(env or {})}, **more)
        assert KEY not in done.out + done.err
        assert "Traceback" not in done.err, done.err
        return done

    return run
