"""Where requests may go (`Guard`), where credentials may go (`Origins`), and links from answers.

Address blocks: the IANA special-purpose registries (RFC 6890 and its updates); forms of an IPv4 literal:
the WHATWG URL standard, "host parsing"; metadata addresses: the pages of Azure, AWS, Google and Alibaba Cloud.
"""

import ipaddress
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from urllib.parse import SplitResult, unquote, urlsplit

from crm_core.errors import BadAnswer, BadRequest, FieldError, HubError, Misconfigured, Unavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_PORTS = {"https": 443, "http": 80}
METADATA_NAMES = frozenset(
    {
        "metadata",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.azure.internal",
        "metadata.tencentyun.com",
        "instance-data",
        "instance-data.ec2.internal",
    }
)
_METADATA = frozenset(
    ipaddress.ip_address(each)
    for each in ("169.254.169.254", "fd00:ec2::254", "168.63.129.16", "100.100.100.200", "192.0.0.192")
)
_PRIVATE = tuple(
    ipaddress.ip_network(each)
    for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fec0::/10")
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# Networks that some versions of `ipaddress` call global although nothing of ours can be there.
_NOWHERE = tuple(ipaddress.ip_network(each) for each in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23"))

_UNFIT = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_NETLOC = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@%]+)(?::([0-9]{0,5}))?")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class Place(Enum):
    """What kind of place an address is."""

    PUBLIC = "public"
    LOOPBACK = "loopback"
    PRIVATE = "private"
    FORBIDDEN = "forbidden"


def split_url(url: str) -> SplitResult:
    """The parts of an absolute http(s) URL in one normal form: host in lower case, IDNA-encoded, without a
    trailing dot, IPv4 literals of any notation as four decimals, the default port left out.

    Raises BadRequest (never with path or query) for anything that two parsers could read differently.
    """
    if _UNFIT.search(url):
        raise BadRequest("The URL has spaces, control characters or backslashes; percent-encode them.")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise BadRequest("The URL can't be parsed; write it as https://host/path.") from None
    if parts.scheme not in DEFAULT_PORTS or not parts.netloc:
        raise BadRequest("The URL is not absolute; write it as https://host/path.")
    if "@" in parts.netloc:
        raise BadRequest("The URL holds a user name or password; put credentials into the secrets.")
    if "#" in url:
        raise BadRequest("The URL has a fragment (#...); leave it out.")
    match = _NETLOC.fullmatch(parts.netloc)
    if not match:
        raise BadRequest("The URL's host or port is not valid; write it as https://host:port/path.")
    host, port = _host(match[1]), int(match[2] or DEFAULT_PORTS[parts.scheme])
    if not 1 <= port <= 65535:
        raise BadRequest(f"The port of '{host}' is not valid; it is 1 to 65535.")
    shown = f"[{host}]" if ":" in host else host
    netloc = shown if port == DEFAULT_PORTS[parts.scheme] else f"{shown}:{port}"
    return SplitResult(parts.scheme, netloc, parts.path or "/", parts.query, "")


def port_of(parts: SplitResult) -> int:
    return parts.port or DEFAULT_PORTS[parts.scheme]


def origin_of(url: str) -> str:
    """Scheme, host and port in normal form, such as "https://x.example:8443". Raises BadRequest."""
    parts = split_url(url)
    return f"{parts.scheme}://{parts.netloc}"


def same_origin(a: str, b: str) -> bool:
    """Whether two URLs have the same origin; False if either is no absolute http(s) URL."""
    try:
        return origin_of(a) == origin_of(b)
    except BadRequest:
        return False


def stays_below(path: str) -> bool:
    """Whether a path can't climb out of the base it is joined to: no dot segment, no double slash in front,
    nothing that a server may turn into one (percent-encoded dots, slashes, backslashes).
    """
    plain = unquote(path)
    if path.startswith("//") or re.search(r"[\x00-\x1f\x7f-\x9f]", plain) or "\\" in plain:
        return False
    return not any(segment in {".", ".."} for segment in plain.split("/"))


def path_and_query(link: str, base: str) -> str:
    """The "path?query" of a link from an answer, relative to `base`; the link's own origin is never used.

    Raises BadAnswer if the link is no absolute http(s) URL or absolute path, or leads out of the base.
    """
    if _UNFIT.search(link):
        raise BadAnswer(
            "A link in the answer has spaces, control characters or backslashes; it isn't followed."
        )
    try:
        parts = urlsplit(link)
    except ValueError:
        raise BadAnswer("A link in the answer can't be parsed; it isn't followed.") from None
    absolute = parts.scheme in DEFAULT_PORTS and parts.netloc
    if not absolute and (parts.scheme or parts.netloc or not link.startswith("/")):
        raise BadAnswer("A link in the answer is neither absolute nor a path; it isn't followed.")
    root = urlsplit(base).path.rstrip("/") + "/"
    below = parts.path.removeprefix(root)
    if not parts.path.startswith(root) or below.startswith("/") or not stays_below(below):
        raise BadAnswer(f"A link in the answer leads out of {root}; it isn't followed.")
    return f"{below}?{parts.query}" if parts.query else below


def place_of(address: Address) -> Place:
    """What kind of place an address is, seen through IPv6 forms that carry an IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return place_of(address.ipv4_mapped)
        inner = _translated(address)
        if inner is not None:
            # A translator could reach whatever is inside: only public addresses are let through.
            return Place.PUBLIC if place_of(inner) is Place.PUBLIC else Place.FORBIDDEN
    if address in _METADATA:
        return Place.FORBIDDEN
    if address.is_loopback:
        return Place.LOOPBACK
    if any(address in network for network in _PRIVATE if network.version == address.version):
        return Place.PRIVATE
    if any(address in network for network in _NOWHERE if network.version == address.version):
        return Place.FORBIDDEN
    if address.version == 6 and address not in _GLOBAL_UNICAST:
        return Place.FORBIDDEN
    # Link-local, multicast, unspecified, broadcast, documentation and reserved blocks are none of them global.
    return Place.PUBLIC if address.is_global and not address.is_multicast else Place.FORBIDDEN


class Guard:
    """Judges every outbound address. Loopback and private addresses need a setting; others are never allowed."""

    def __init__(self, allow_loopback: bool, allow_private: bool) -> None:
        self._allow_loopback = allow_loopback
        self._allow_private = allow_private

    def check_url(self, url: str) -> SplitResult:
        """The URL in normal form; what is asked for is then exactly what was judged.

        Raises BadRequest, naming host and remedy. Names are judged again by address in `addresses`.
        """
        parts = split_url(url)
        host = parts.hostname or ""
        literal = _literal(host)
        if host in METADATA_NAMES:
            raise BadRequest(f"'{host}' is a cloud metadata host; the hub never calls it.")
        if literal is not None:
            self._judge(host, literal)
        if parts.scheme == "http" and not (self._allow_loopback and is_loopback(host)):
            remedy = " or set ALLOW_LOOPBACK" if is_loopback(host) else ""
            raise BadRequest(f"'{host}' is called by http; use https{remedy}.")
        return parts

    def addresses(self, host: str, port: int) -> tuple[str, ...]:
        """The addresses of a host, resolved once, in the resolver's order; only these may be dialled.

        One forbidden address among them refuses the whole name: a name that mixes places is either an attack
        (rebinding) or a mistake, and taking "the first allowed one" would hide both and depend on luck.
        Raises BadRequest, or Unavailable if the name does not resolve.
        """
        bare = host.strip("[]").rstrip(".").lower()
        literal = _literal(bare)
        if bare in METADATA_NAMES:
            raise BadRequest(f"'{bare}' is a cloud metadata host; the hub never calls it.")
        if literal is not None:
            self._judge(bare, literal)
            return (str(literal),)
        try:
            found = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise Unavailable(f"The host name '{bare}' does not resolve.") from None
        addresses = tuple(dict.fromkeys(str(each[4][0]) for each in found))
        for address in addresses:
            # Link-local answers carry a zone ("fe80::1%eth0"), which is no part of the address.
            self._judge(bare, ipaddress.ip_address(address.partition("%")[0]))
        if not addresses:
            raise Unavailable(f"The host name '{bare}' does not resolve.")
        return addresses

    def resolve(self, host: str, port: int) -> str:
        """The first of `addresses`."""
        return self.addresses(host, port)[0]

    def _judge(self, host: str, address: Address) -> None:
        place = place_of(address)
        shown = f"'{host}'" if host == str(address) else f"'{host}' ({address})"
        if place is Place.FORBIDDEN:
            raise BadRequest(
                f"{shown} is a link-local, metadata or reserved address; the hub never calls it."
            )
        if place is Place.LOOPBACK and not self._allow_loopback:
            raise BadRequest(f"{shown} is a loopback address; only with ALLOW_LOOPBACK does the hub call it.")
        if place is Place.PRIVATE and not self._allow_private:
            raise BadRequest(f"{shown} is a private address; set ALLOW_PRIVATE_HOSTS if the hub may call it.")
        if _is_localhost(host) and place is not Place.LOOPBACK:
            # http is allowed to this name, so it has to stay on this machine (RFC 6761 section 6.3).
            raise BadRequest(f"{shown} does not resolve to loopback; the hub does not call it.")


class Origins:
    """Where the credentials of a connection may go.

    A suffix ".x.com" allows every host below x.com, "x.com" that host only, both by https on the default port.
    """

    def __init__(
        self, suffixes: Sequence[str], confirmed_origin: str = "", allow_loopback: bool = False
    ) -> None:
        self._suffixes = tuple(suffix.lower().rstrip(".") for suffix in suffixes)
        self._confirmed = origin_of(confirmed_origin) if confirmed_origin else ""
        self._allow_loopback = allow_loopback

    def allows(self, url: str) -> bool:
        """Raises BadRequest for what is no absolute http(s) URL."""
        parts = split_url(url)
        host = parts.hostname or ""
        if self._confirmed and f"{parts.scheme}://{parts.netloc}" == self._confirmed:
            return True
        if self._allow_loopback and is_loopback(host):
            return True
        if parts.scheme != "https" or parts.port is not None:
            return False
        return any(host.endswith(each) if each.startswith(".") else host == each for each in self._suffixes)

    def check(self, url: str) -> None:
        """Raises Misconfigured, naming the origin and the remedy, unless credentials may go to this URL."""
        if not self.allows(url):
            known = (
                ", ".join(f"*{each}" if each.startswith(".") else each for each in self._suffixes) or "none"
            )
            raise Misconfigured(
                f"Credentials may not go to {origin_of(url)}: allowed are {known}. Correct the connection's "
                "address, or let an Admin confirm this origin for the connection."
            )


def is_loopback(host: str) -> bool:
    """Whether a host says by itself, without asking DNS, that it is this machine."""
    literal = _literal(host)
    return _is_localhost(host) if literal is None else place_of(literal) is Place.LOOPBACK


def _is_localhost(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _host(text: str) -> str:
    """A host in normal form; raises BadRequest."""
    if text.startswith("["):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            raise BadRequest("The URL's host is not a valid IPv6 address.") from None
    host = text.lower()
    if not host.isascii():
        import idna  # large tables, needed by hardly any host

        try:
            host = idna.encode(host, uts46=True).decode("ascii").lower()
        except idna.IDNAError:
            raise BadRequest("The URL's host is not a valid international name.") from None
    host = host.removesuffix(".")
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadRequest("The URL's host is not a valid name.")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            # inet_aton reads every notation that a resolver would: 2130706433, 0x7f.1, 0177.0.0.1
            return str(ipaddress.IPv4Address(socket.inet_aton(host)))
        except OSError:
            raise BadRequest(f"The URL's host '{host}' is not a valid IPv4 address.") from None
    return host


def _literal(host: str) -> Address | None:
    """The address that a host spells out, in whatever notation; None for a name. Raises BadRequest."""
    if ":" in host:
        return ipaddress.IPv6Address(_host(f"[{host}]"))
    if _NUMBER.fullmatch(host.rpartition(".")[2].lower()):
        return ipaddress.IPv4Address(_host(host))
    return None


def _translated(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address inside a NAT64 (RFC 6052) or 6to4 (RFC 3056) address."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour


@contextmanager
def of_setting(name: str) -> Iterator[None]:
    """What is refused inside the block is the fault of this setting, and says so."""
    try:
        yield
    except HubError as error:
        message = f"settings.{name}: {error.message}"
        raise Misconfigured(message, errors=[FieldError(f"settings.{name}", message)]) from None
