"""What people type: the one form it is kept in, or a sentence that says what to change."""

import base64
from collections.abc import Callable

import pytest
from django.core.exceptions import ValidationError

from delivery.sources.jetstream.player import options
from subscriptions import validation as v


def secret(size: int) -> str:
    return "whsec_" + base64.b64encode(b"\xfb" * size).decode()


def assert_refused(clean: Callable[[str], str], value: str, words: str = "") -> None:
    with pytest.raises(ValidationError) as caught:
        clean(value)
    (message,) = caught.value.messages
    assert words in message


# --- Patterns, DIDs, kinds, operations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["*", "app.bsky.feed.post", "app.bsky.feed.*", "app.*", "invoice.paid", "a.b-c.d_e", "x", "app.bsky." + "x" * 63, "A.b.C"])
def test_it_takes_patterns(value: str) -> None:
    assert v.clean_pattern(value) == value
    assert v.clean_pattern(f"  {value}\n") == value


@pytest.mark.parametrize(
    "value",
    [
        "", "app.bsky.fo*", "*.feed", "app.*.post", "**", "app.", ".app", "app..post", "app bsky", "app.bsky.feed.post,app.bsky.feed.like", "app/bsky",
        "app.bsky.*.", "-app.bsky", "äpp.bsky.feed", "app.bsky." + "x" * 64, ".".join(["a"] * 159) + ".b", "did:plc:abc", "app.bsky\x00",
    ],
)  # fmt: skip
def test_it_refuses_patterns(value: str) -> None:
    assert_refused(v.clean_pattern, value, "is not a collection: write a full name (app.bsky.feed.post), a prefix that ends in .*")


@pytest.mark.parametrize(
    "value", ["did:plc:" + "a" * 24, "did:web:example.com", "did:web:example.com%3A8080", "did:web:localhost%3A80:user", "did:key:zQ3sh_-.x"]
)
def test_it_takes_dids(value: str) -> None:
    assert v.clean_did(value) == value
    assert v.clean_did(f"  {value} ") == value


@pytest.mark.parametrize(
    "value", ["", "alice.example", "@alice.example", "did:", "did:plc:", "did:plc", "DID:plc:abc", "did:PLC:abc", "did:web3:abc", "did:plc:abc:", "did:plc:a b",
              "at://did:plc:abc", "did:plc:ä", "did:plc:abc/x", "did:plc:" + "a" * 2041]
)  # fmt: skip
def test_it_refuses_dids(value: str) -> None:
    assert_refused(v.clean_did, value, "is not a DID: write it as did:plc:… or did:web:…")


@pytest.mark.parametrize(
    "value", ["app.bsky.feed.post", "app.*", "app.bsky.*", "invoice.paid", "x", "a.b-c.d_e", "com.9x.y", "com.x.9y", "9x.com.y", "com.x-.y", "*", "A.b.C"]
)
def test_it_knows_what_a_host_can_be_asked_for(value: str) -> None:
    try:
        options.Filter.build([value], [], 0)
    except options.BadOption:
        expected = False
    else:
        expected = True
    assert v.is_collection(value) is expected


@pytest.mark.parametrize(("value", "kept"), [("commit", "commit"), (" Identity ", "identity"), ("ACCOUNT", "account"), ("sync", "sync"), ("api", "api")])
def test_it_takes_kinds(value: str, kept: str) -> None:
    assert v.clean_kind(value) == kept


@pytest.mark.parametrize("value", ["", "commits", "posts", "commit,identity", "*"])
def test_it_refuses_kinds(value: str) -> None:
    assert_refused(v.clean_kind, value, "is not a kind of event: use commit, identity, account, sync, api.")


@pytest.mark.parametrize(("value", "kept"), [("commit", "commit"), (" Identity ", "identity"), ("ACCOUNT", "account"), ("sync", "sync")])
def test_it_takes_kinds_of_a_stream(value: str, kept: str) -> None:
    assert v.clean_stream_kind(value) == kept


@pytest.mark.parametrize("value", ["", "api", "commits", "*"])
def test_it_refuses_kinds_that_no_stream_has(value: str) -> None:
    assert_refused(v.clean_stream_kind, value, "commit, identity, account, sync")


@pytest.mark.parametrize(("value", "kept"), [("create", "create"), (" Update", "update"), ("DELETE", "delete")])
def test_it_takes_operations(value: str, kept: str) -> None:
    assert v.clean_operation(value) == kept


@pytest.mark.parametrize("value", ["", "created", "*", "put"])
def test_it_refuses_operations(value: str) -> None:
    assert_refused(v.clean_operation, value, "is not an operation: use create, update, delete.")


# --- URLs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("https://example.com/hook", "https://example.com/hook"),
        ("  https://example.com/hook\n", "https://example.com/hook"),
        ("HTTPS://Example.COM/Hook", "https://example.com/Hook"),
        ("https://example.com", "https://example.com/"),
        ("https://example.com?a=1", "https://example.com/?a=1"),
        ("https://example.com./hook", "https://example.com./hook"),
        ("http://my_app.internal:8000/", "http://my_app.internal:8000/"),
        ("http://3scale/", "http://3scale/"),
        ("http://1and1.example/", "http://1and1.example/"),
        ("http://１０.０.０.１/", "http://10.0.0.1/"),
        ("http://[fe80::1%25eth0]/", "http://[fe80::1%25eth0]/"),
        ("https://example.com/hook#part", "https://example.com/hook"),
        ("https://example.com:/hook", "https://example.com/hook"),
        ("http://localhost:3000/webhooks", "http://localhost:3000/webhooks"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/"),
        ("http://[::1]:8000/x", "http://[::1]:8000/x"),
        ("http://[2001:DB8::1]/x", "http://[2001:db8::1]/x"),
        ("https://bücher.example/hook", "https://xn--bcher-kva.example/hook"),
        ("https://BÜCHER.example:444/", "https://xn--bcher-kva.example:444/"),
        ("https://例え.テスト/", "https://xn--r8jz45g.xn--zckzah/"),
        ("https://faß.example/", "https://xn--fa-hia.example/"),
        ("https://ｅxample.com/", "https://example.com/"),
        ("https://example.com/ü?q=ü", "https://example.com/%C3%BC?q=%C3%BC"),
        ("https://example.com/%C3%BC/%2F", "https://example.com/%C3%BC/%2F"),
        ("https://example.com/a@b", "https://example.com/a@b"),
        ("https://example.com/" + "x" * 2028, "https://example.com/" + "x" * 2028),
    ],
)
def test_it_takes_urls_of_webhooks(value: str, kept: str) -> None:
    assert v.clean_webhook_url(value) == kept
    assert v.clean_webhook_url(kept) == kept


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "is not a URL"),
        ("example.com/hook", "is not a URL"),
        ("//example.com/hook", "is not a URL"),
        ("ftp://example.com", "is not a URL of the kind wanted here (http or https)"),
        ("file:///etc/passwd", "is not a URL"),
        ("gopher://example.com/", "is not a URL"),
        ("javascript:alert(1)", "is not a URL"),
        ("ws://example.com/subscribe", "is not a URL"),
        ("https://", "is not a URL"),
        ("https:///path", "is not a URL"),
        ("https://:443/", "is not a URL"),
        ("https://example.com:0/", "is not a URL"),
        ("https://example.com:65536/", "is not a URL"),
        ("https://example.com:abc/", "is not a URL"),
        ("https://example.com:-1/", "is not a URL"),
        ("https://[::1/", "is not a URL"),
        ("https://[example]/", "is not a URL"),
        ("https://exam ple.com/", "is not a URL"),
        ("https://example.com/a b", "is not a URL"),
        ("https://example.com/a\r\nHost: evil", "is not a URL"),
        ("https://example.com/a\tb", "is not a URL"),
        ("https://example.com\\@evil.example/", "is not a URL"),
        ("https://user:password@example.com/", "user name or password"),
        ("https://user@example.com/", "user name or password"),
        ("https://@example.com/", "user name or password"),
        ("https://:password@example.com/", "user name or password"),
        ("https://" + "ü" * 70 + ".example/", "is not a valid name"),
        ("https://" + "x" * 64 + ".example/", "each part of 1 to 63 characters"),
        ("https://" + "x." * 126 + "example/", "is not a valid name"),
        ("https://example..com/", "single dots"),
        ("https://.example.com/", "single dots"),
        ("https://exam%70le.com/", "use letters, digits, hyphens"),
        ("https://exa*mple.com/", "use letters, digits, hyphens"),
        ("http://127.1/", "is a number and not an IPv4 address: write it like 192.0.2.1"),
        ("http://0x7f000001/", "is a number and not an IPv4 address"),
        ("http://010.0.0.1/", "is a number and not an IPv4 address"),
        ("http://example.com.1/", "is a number and not an IPv4 address"),
        ("http://[::1]x/", "something other than a port"),
        ("https://\u200d.example/", "is not a valid name"),
        ("https://example.com/" + "x" * 2029, "2,049 characters: at most 2,048"),
        # Short as typed, long as kept.
        ("https://example.com/" + "ü" * 400, "2,420 characters: at most 2,048"),
    ],
)
def test_it_refuses_urls_of_webhooks(value: str, words: str) -> None:
    assert_refused(v.clean_webhook_url, value, words)


def test_it_keeps_passwords_out_of_its_messages() -> None:
    with pytest.raises(ValidationError) as caught:
        v.clean_webhook_url("https://user:hunter2@example.com/")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("wss://jetstream.us-east.bsky.network/subscribe", "wss://jetstream.us-east.bsky.network/subscribe"),
        ("wss://jetstream.us-east.bsky.network", "wss://jetstream.us-east.bsky.network/subscribe"),
        ("wss://jetstream.us-east.bsky.network/", "wss://jetstream.us-east.bsky.network/subscribe"),
        ("WS://LOCALHOST:6008/subscribe/", "ws://localhost:6008/subscribe"),
        ("ws://[::1]:6008", "ws://[::1]:6008/subscribe"),
        ("wss://example.com/jetstream/subscribe", "wss://example.com/jetstream/subscribe"),
        ("wss://bücher.example", "wss://xn--bcher-kva.example/subscribe"),
        ("wss://example.com/xrpc/network.bsky.jetstream.subscribeEvents", "wss://example.com/xrpc/network.bsky.jetstream.subscribeEvents"),
        ("wss://Example.com/behind/xrpc/network.bsky.jetstream.subscribeEvents/", "wss://example.com/behind/xrpc/network.bsky.jetstream.subscribeEvents"),
    ],
)
def test_it_takes_urls_of_streams(value: str, kept: str) -> None:
    assert v.clean_stream_url(value) == kept
    assert v.clean_stream_url(kept) == kept


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("https://example.com/subscribe", "(ws or wss)"),
        ("example.com", "(ws or wss)"),
        ("wss://", "(ws or wss)"),
        ("wss://example.com/xrpc", "use /subscribe for the v1 wire or /xrpc/network.bsky.jetstream.subscribeEvents for v2"),
        ("wss://example.com/xrpc/network.bsky.jetstream.getZstdDictionary", "use /subscribe for the v1 wire or"),
        ("wss://example.com/xrpc/network.bsky.jetstream.subscribeEvents?kinds=commit", "has a query: leave it out"),
        ("wss://example.com/subscribe?cursor=1", "has a query: leave it out"),
        ("wss://example.com:99999", "is not a URL"),
        ("wss://user:password@example.com/", "user name or password"),
        ("wss://example.com/" + "x" * 230 + "/subscribe", "at most 255 are allowed"),
    ],
)
def test_it_refuses_urls_of_streams(value: str, words: str) -> None:
    assert_refused(v.clean_stream_url, value, words)


# --- Secrets and tokens ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [24, 32, 64])
def test_it_takes_secrets(size: int) -> None:
    assert v.clean_secret(f" {secret(size)}\n") == secret(size)


@pytest.mark.parametrize(
    "value",
    ["", "whsec_", "hunter2", secret(23), secret(65), secret(32).removeprefix("whsec_"), secret(32).replace("whsec", "WHSEC"), secret(32)[:-1],
     secret(32) + "!", secret(32).replace("+", "-"), "whsec_" + "é" * 40],
)  # fmt: skip
def test_it_refuses_secrets_without_repeating_them(value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        v.clean_secret(value)
    assert "A signing secret is whsec_ followed by the base64 of 24 to 64 random bytes." in caught.value.messages[0]
    assert len(value) < 7 or value not in caught.value.messages[0]


@pytest.mark.parametrize("value", ["x", "a-bearer-token", "eyJhbGciOi.J9/+=~", "!" * 4096])
def test_it_takes_bearer_tokens(value: str) -> None:
    assert v.clean_bearer_token(f" {value}\n") == value


@pytest.mark.parametrize("value", ["", "two words", "line\nbreak", "ümlaut", "x\x7f", "x\x00y", "x" * 4097])
def test_it_refuses_bearer_tokens(value: str) -> None:
    assert_refused(v.clean_bearer_token, value, "A bearer token is at most 4,096 printable ASCII characters without spaces.")
