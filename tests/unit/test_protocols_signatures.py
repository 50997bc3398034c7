"""What proves a webhook: the vectors that vendors publish, an independent signer, and what is refused."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from crm_core.connector import Hook
from crm_core.errors import Misconfigured, SignatureInvalid
from crm_core.protocols.signatures import (
    STANDARD_WEBHOOKS,
    AnyOf,
    BasicAuth,
    ClientState,
    Encoding,
    HeaderToken,
    Hmac,
    Part,
    QueryToken,
    Stamp,
    fingerprint,
    secrets_of,
)

NOW = 1_800_000_000.0
HUBSPOT = Hmac(
    "x-hubspot-signature-v3",
    (Part.METHOD, Part.URI, Part.BODY, Part.TIMESTAMP),
    Encoding.BASE64,
    stamp=Stamp("x-hubspot-request-timestamp", "milliseconds"),
    decoded=":/?@!$'()*,;",
)
HUBSPOT_SECRET = "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy"
HUBSPOT_URL = "https://www.example.com/webhook_uri"
GITHUB = Hmac("x-hub-signature-256", prefix="sha256=")
DATED = Hmac("x-signature", ("v0:", Part.TIMESTAMP, ":", Part.BODY), prefix="v0=", stamp=Stamp("x-time"))


def hook(body=b"", headers=None, **more):
    return Hook(headers or {}, more.pop("query", {}), body, **more)


def refused(scheme, sent, secrets, now=NOW):
    with pytest.raises(SignatureInvalid):
        scheme.proof(sent, secrets, now)


# --- what vendors publish ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "signature"),
    [
        (b"{'example_field':'example_value'}", "K36dawei4A+QBNolUOqo7s91KQDWQ5MXZ/QufNYuk/Y="),
        (b'{"example_field":"example_value"}', "oaA3M5dEtt6kFsseJD/Hv/x+JNl1vsoxFj4oxmwP6Go="),
    ],
)
def test_hubspot_s_vectors(body, signature):
    """HubSpot, "Validating requests", version 3."""
    headers = {"x-hubspot-signature-v3": signature, "x-hubspot-request-timestamp": "1693657560000"}
    sent = hook(body, headers, url=HUBSPOT_URL)
    assert HUBSPOT.proof(sent, [HUBSPOT_SECRET], 1693657560.0) == fingerprint(HUBSPOT_SECRET)
    refused(HUBSPOT, sent, [HUBSPOT_SECRET], 1693657560.0 + 301)
    refused(HUBSPOT, sent, [HUBSPOT_SECRET], 1693657560.0 - 301)
    refused(HUBSPOT, hook(body, headers, url=HUBSPOT_URL, method="GET"), [HUBSPOT_SECRET], 1693657560.0)
    refused(HUBSPOT, hook(body, headers, url=HUBSPOT_URL + "/"), [HUBSPOT_SECRET], 1693657560.0)


def test_hubspot_signs_some_characters_of_the_address_decoded():
    plain = b"POSThttps://hub.example/h?a=b:c/d%20e" + b"{}" + b"1800000000000"
    signature = base64.b64encode(hmac.digest(b"s", plain, "sha256")).decode()
    headers = {"x-hubspot-signature-v3": signature, "x-hubspot-request-timestamp": "1800000000000"}
    sent = hook(b"{}", headers, url="https://hub.example/h?a=b%3ac%2Fd%20e")
    assert HUBSPOT.proof(sent, ["s"], NOW) == fingerprint("s")


def test_github_s_vector():
    """GitHub, "Validating webhook deliveries"."""
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    sent = hook(b"Hello, World!", {"x-hub-signature-256": signature})
    assert GITHUB.proof(sent, ["It's a Secret to Everybody"], NOW)
    for other in ("It's a secret to Everybody", ""):
        refused(GITHUB, sent, [other])
    for header in (signature.removeprefix("sha256="), signature + "0", " " + signature, signature + ",x", ""):
        refused(
            GITHUB, hook(b"Hello, World!", {"x-hub-signature-256": header}), ["It's a Secret to Everybody"]
        )


def test_a_vector_of_standard_webhooks():
    """Svix, "Verifying webhooks manually"."""
    headers = {
        "webhook-id": "msg_loFOjxBNrRLzqYUf",
        "webhook-timestamp": "1731705121",
        "webhook-signature": "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
    }
    sent = hook(b'{"event_type":"ping","data":{"success":true}}', headers)
    assert STANDARD_WEBHOOKS.proof(sent, ["whsec_plJ3nmyCDGBKInavdOK15jsl"], 1731705121.0)


# --- an independent signer and verifier --------------------------------------------------------------------------

KEY = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
OTHER = "whsec_" + base64.b64encode(b"fedcba9876543210fedcba9876543210").decode()


def signed(body, secret=KEY, at=NOW):
    moment = datetime.fromtimestamp(at, UTC)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at)),
        "webhook-signature": Webhook(secret).sign("msg_1", moment, body.decode()),
    }


@given(st.text().map(str.encode))
def test_what_the_package_of_standard_webhooks_signs_is_taken(body):
    assert STANDARD_WEBHOOKS.proof(hook(body, signed(body)), [KEY], NOW) == fingerprint(KEY)
    refused(STANDARD_WEBHOOKS, hook(body, signed(body)), [OTHER])


@given(st.text().map(str.encode), st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]))
def test_the_package_takes_and_refuses_what_we_do(body, broken):
    now = datetime.now(UTC).timestamp()
    headers = signed(body, at=now)
    assert Webhook(KEY).verify(body, headers, json_parse=False) is None
    assert STANDARD_WEBHOOKS.proof(hook(body, headers), [KEY], now)
    without = {name: value for name, value in headers.items() if name != broken}
    with pytest.raises(WebhookVerificationError):
        Webhook(KEY).verify(body, without, json_parse=False)
    refused(STANDARD_WEBHOOKS, hook(body, without), [KEY], now)


def test_one_of_several_signatures_suffices():
    body = b"{}"
    old, new = signed(body, OTHER), signed(body)
    both = {**new, "webhook-signature": f"{old['webhook-signature']} v1a,x {new['webhook-signature']}"}
    assert STANDARD_WEBHOOKS.proof(hook(body, both), [KEY], NOW) == fingerprint(KEY)
    refused(STANDARD_WEBHOOKS, hook(body, {**new, "webhook-signature": "v1, v1,= v2,x"}), [KEY])


# --- one flipped byte --------------------------------------------------------------------------------------------


def digest(scheme, secret, *parts):
    found = hmac.new(secret.encode(), b"".join(parts), hashlib.sha256)
    text = found.hexdigest() if scheme.encoding is Encoding.HEX else base64.b64encode(found.digest()).decode()
    return scheme.prefix + text


def sent_by(name, body, secret):
    """A request that the scheme of this name takes."""
    at = str(int(NOW))
    if name == "body, hex":
        return GITHUB, hook(body, {"x-hub-signature-256": digest(GITHUB, secret, body)})
    if name == "body, base64":
        scheme = Hmac("x-hmac", encoding=Encoding.BASE64)
        return scheme, hook(body, {"x-hmac": digest(scheme, secret, body)})
    if name == "timestamp and body":
        return DATED, hook(
            body, {"x-time": at, "x-signature": digest(DATED, secret, f"v0:{at}:".encode(), body)}
        )
    at = f"{at}000"
    signature = digest(HUBSPOT, secret, b"POST", HUBSPOT_URL.encode(), body, at.encode())
    headers = {"x-hubspot-signature-v3": signature, "x-hubspot-request-timestamp": at}
    return HUBSPOT, hook(body, headers, url=HUBSPOT_URL)


SCHEMES = ["body, hex", "body, base64", "timestamp and body", "method, uri, body and timestamp"]
TEXTS = st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"]), min_size=1)


@given(st.sampled_from(SCHEMES), st.binary(min_size=1, max_size=300), TEXTS, st.data())
def test_one_flipped_bit_of_the_body_is_refused(name, body, secret, data):
    scheme, sent = sent_by(name, body, secret)
    assert scheme.proof(sent, ["another", secret], NOW) == fingerprint(secret)
    place = data.draw(st.integers(0, len(body) - 1))
    flipped = bytearray(body)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    refused(scheme, Hook(sent.headers, {}, bytes(flipped), sent.method, sent.url), [secret])
    refused(scheme, sent, [])
    refused(scheme, sent, [""])


@given(st.sampled_from(SCHEMES), st.binary(max_size=100), st.data())
def test_another_character_in_any_header_is_refused(name, body, data):
    scheme, sent = sent_by(name, body, "secret")
    header = data.draw(st.sampled_from(sorted(sent.headers)))
    text = sent.headers[header]
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda c: c.lower() != text[place].lower()))
    changed = text[:place] + other + text[place + 1 :]
    refused(scheme, Hook({**sent.headers, header: changed}, {}, body, sent.method, sent.url), ["secret"])


FULL_WIDTH = "".join(chr(0xFF10 + int(each)) for each in "1800000000")


@pytest.mark.parametrize(
    "time", ["", "abc", "1e9", "-1800000000", FULL_WIDTH, "9" * 17, "1800000000.0", " 1800000000"]
)
def test_a_time_is_plain_digits(time):
    headers = {"x-time": time, "x-signature": digest(DATED, "s", f"v0:{time}:".encode())}
    refused(DATED, hook(b"", headers), ["s"])


def test_a_recorded_webhook_is_too_old():
    scheme, sent = sent_by("timestamp and body", b"{}", "s")
    assert scheme.proof(sent, ["s"], NOW + 300)
    refused(scheme, sent, ["s"], NOW + 300.5)
    refused(scheme, sent, ["s"], NOW - 300.5)


def test_without_its_address_the_hub_can_verify_no_signed_one():
    scheme, sent = sent_by("method, uri, body and timestamp", b"{}", "s")
    with pytest.raises(Misconfigured, match="PUBLIC_URL"):
        scheme.proof(Hook(sent.headers, {}, sent.body, "POST", "/api/webhooks/1"), ["s"], NOW)


# --- shared tokens -----------------------------------------------------------------------------------------------

BASIC = "Basic " + base64.b64encode("hub:pä:ss".encode()).decode()


@pytest.mark.parametrize(
    ("scheme", "sent", "secret"),
    [
        (HeaderToken("x-token"), hook(headers={"x-token": "t-ñ"}), "t-ñ"),
        (HeaderToken("authorization", "Bearer "), hook(headers={"authorization": "Bearer t"}), "t"),
        (QueryToken("code"), hook(query={"code": "a+b"}), "a+b"),
        (BasicAuth(), hook(headers={"authorization": BASIC}), "hub:pä:ss"),
        (BasicAuth(), hook(headers={"authorization": BASIC.replace("Basic", "basic")}), "hub:pä:ss"),
        (ClientState(), hook(b'{"value":[{"clientState":"c"},{"clientState":"c"}]}'), "c"),
        (AnyOf((QueryToken("t"), HeaderToken("x"))), hook(headers={"x": "s"}), "s"),
    ],
)
def test_a_token_is_taken_while_it_is_one_of_the_secrets(scheme, sent, secret):
    assert scheme.proof(sent, [secret], NOW) == fingerprint(secret)
    assert scheme.proof(sent, ["new", secret], NOW) == fingerprint(secret)
    for secrets in ([], [""], ["new"], [secret + "x"], [secret[:-1]], [secret.upper() + "!"]):
        refused(scheme, sent, secrets)


@pytest.mark.parametrize(
    ("scheme", "sent"),
    [
        (HeaderToken("authorization", "Bearer "), hook(headers={"authorization": "s"})),
        (HeaderToken("authorization", "Bearer "), hook(headers={"authorization": "bearer s"})),
        (HeaderToken("x"), hook(headers={"x": "s, s"})),
        (HeaderToken("x"), hook(headers={"x": "s\u200b"})),
        (HeaderToken("x"), hook(headers={"x": "\ud800"})),
        (BasicAuth(), hook(headers={"authorization": "Basic s"})),
        (BasicAuth(), hook(headers={"authorization": "Bearer " + BASIC[6:]})),
        (QueryToken("t"), hook(query={"T": "s"})),
        (ClientState(), hook(b'{"value":[{"clientState":"s"},{"clientState":"other"}]}')),
        (ClientState(), hook(b'{"value":[{"clientState":"s"},{}]}')),
        (ClientState(), hook(b'{"value":[]}')),
        (ClientState(), hook(b'{"value":["s"]}')),
        (ClientState(), hook(b"[" * 100_000)),
        (ClientState(), hook(b"\xff")),
        (AnyOf((QueryToken("t"), HeaderToken("x"))), hook(headers={"t": "s"})),
        (AnyOf(()), hook()),
    ],
)
def test_what_only_looks_like_the_token_is_refused(scheme, sent):
    refused(scheme, sent, ["s"])


def test_while_a_secret_is_changed_a_setting_holds_two():
    assert secrets_of(" new\n old ") == ("new", "old")
    assert secrets_of("") == ()


def test_hex_and_base64_are_read_in_one_way():
    text = base64.b64encode(b"\x00" * 32).decode()
    assert Encoding.BASE64.decoded(text) == Encoding.BASE64.decoded(text.rstrip("=")) == b"\x00" * 32
    assert Encoding.BASE64.decoded(text.replace("A=", "B=")) == b""
    assert Encoding.HEX.decoded("AB") == Encoding.HEX.decoded("ab") == b"\xab"
    for wrong in ("a b", "0xab", "a", "ñ", "..", ""):
        assert Encoding.HEX.decoded(wrong) == b""
