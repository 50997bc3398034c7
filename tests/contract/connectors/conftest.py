"""Starts each remote once for a test process, and hands every test the remote, and the kind of record, that it is for.

A test with a `world` runs against each remote of each connector, one with a `variant` besides for each entity that the
connector declares (of several kinds: each), of those that `where` chooses.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from crm_core.hub import connector_names
from tests.contract.connectors.relay import Relay, relayed
from tests.contract.connectors.remote import Remote, Variant, remotes_of, variants
from tests.contract.connectors.world import World

HERE = Path(__file__).parent


def described() -> list[type[Remote]]:
    """The remotes of every connector that has a module here."""
    names = [name for name in connector_names() if (HERE / f"{name}.py").exists()]
    modules = [importlib.import_module(f"tests.contract.connectors.{name}") for name in names]
    return [each for module in modules for each in remotes_of(module)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "world" not in metafunc.fixturenames:
        return
    where: Callable[[Variant], bool] = getattr(metafunc.function, "where", lambda _: True)
    feeds = getattr(metafunc.module, "FEEDS", False)
    params = []
    for remote in described():
        if remote.feeds_only and not feeds:
            continue
        marks = [pytest.mark.oracle] if remote.oracle else []
        name = f"{remote.system}-{remote.name.replace(' ', '-')}"
        if "variant" not in metafunc.fixturenames:
            params.append(pytest.param((remote, None), id=name, marks=marks))
            continue
        params += [
            pytest.param((remote, each), id=f"{name}-{each.id}", marks=marks)
            for each in variants(remote.system)
            if where(each) and (each.map.read_only is (getattr(metafunc.function, "read_only", False)))
        ]
    metafunc.parametrize("place", params)


class Started:
    """The remotes that listen, each started when it is first wanted."""

    def __init__(self, folder: Path, stack: ExitStack, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._folder = folder
        self._stack = stack
        self._worlds: dict[type[Remote], World] = {}
        authority = trustme.CA()
        self.authority = folder / "relay-ca.pem"
        self.certificate = folder / "relay.pem"
        authority.cert_pem.write_to_path(self.authority)
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(self.certificate)

    def world(self, kind: type[Remote]) -> World:
        if kind not in self._worlds:
            remote = kind()
            remote.request = self._request
            folder = self._folder / f"{kind.system}-{kind.__name__}"
            folder.mkdir(exist_ok=True)  # a start may have been skipped
            remote.start(folder, self._stack)
            bundle = folder / "bundle.pem"
            bundle.write_bytes((remote.ca.read_bytes() if remote.ca else b"") + self.authority.read_bytes())
            world = World(remote, remote.access(remote.origin), str(bundle), self._stack)
            self._worlds[kind] = world
        return self._worlds[kind]


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Started]:
    with ExitStack() as stack:
        yield Started(tmp_path_factory.mktemp("remotes"), stack, request)


@pytest.fixture
def world(started: Started, place: tuple[type[Remote], Variant | None]) -> World:
    return started.world(place[0])


@pytest.fixture
def variant(place: tuple[type[Remote], Variant | None]) -> Variant:
    assert place[1] is not None
    return place[1]


@pytest.fixture
def able(world: World) -> Callable[[str], None]:
    """Skips the test, with the reason, where the remote lacks what it needs."""

    def check(what: str) -> None:
        if what in world.remote.lacks:
            pytest.skip(world.remote.lacks[what])

    return check


@pytest.fixture
def relay(world: World, started: Started) -> Iterator[Relay]:
    """A relay to the remote, which breaks what it is told to."""
    remote = world.remote
    with relayed(remote.origin, remote.ca, started.certificate, remote.reads, remote.credentials) as relay:
        yield relay
