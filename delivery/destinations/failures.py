"""Our names for libcurl's failures, and sentences that a person understands. Pure."""

import re

import pycurl

from delivery.destinations.exchange import Error

# libcurl's numbers that pycurl has no name for.
_E_HTTP2_STREAM, _E_TOO_LARGE = 92, 100

_ERRORS = {
    pycurl.E_COULDNT_RESOLVE_HOST: Error.DNS,
    pycurl.E_COULDNT_CONNECT: Error.CONNECT,
    pycurl.E_OPERATION_TIMEDOUT: Error.TIMEOUT,
    pycurl.E_SSL_CONNECT_ERROR: Error.TLS,
    pycurl.E_PEER_FAILED_VERIFICATION: Error.TLS,
    pycurl.E_SSL_CERTPROBLEM: Error.TLS,
    pycurl.E_SSL_CIPHER: Error.TLS,
    pycurl.E_RECV_ERROR: Error.RESET,
    pycurl.E_SEND_ERROR: Error.RESET,
    pycurl.E_GOT_NOTHING: Error.EMPTY_RESPONSE,
    pycurl.E_PARTIAL_FILE: Error.BAD_RESPONSE,
    pycurl.E_FTP_WEIRD_SERVER_REPLY: Error.BAD_RESPONSE,
    pycurl.E_UNSUPPORTED_PROTOCOL: Error.BAD_URL,
    pycurl.E_URL_MALFORMAT: Error.BAD_URL,
    pycurl.E_HTTP2: Error.BAD_RESPONSE,
    _E_HTTP2_STREAM: Error.BAD_RESPONSE,
    pycurl.E_BAD_CONTENT_ENCODING: Error.BAD_RESPONSE,
    _E_TOO_LARGE: Error.BAD_RESPONSE,
}
# How libcurl's E_RECV_ERROR starts when the connection is well and the answer is not.
_UNREADABLE = ("Too large response headers", "Too many response headers", "chunk hex-length", "Invalid chunk", "Malformed encoding", "nghttp2 recv error")
_STATUS_LINE = re.compile(rb"[^ ]+ [0-9]{3}[ \r\n]")
# What libcurl says in words of its own.
_SENTENCES = {
    "Received HTTP/0.9 when not allowed": "What came is not HTTP: it does not start with a status line.",
    "Unsupported HTTP/1 subversion in response": "What came is not HTTP: its status line cannot be read.",
    "Unsupported HTTP version in response": "What came is not HTTP: its status line cannot be read.",
    "Unsupported response code in HTTP response": "The answer has a status that HTTP does not have.",
}
CUT_OFF = "The connection ended in the middle of the answer's headers."
NO_STATUS = "The answer has no status that can be read."
SWITCHED = "The receiver switched to another protocol (status 101), which nobody asked for."
INTERIM = "The connection ended after an interim answer, before the real one."
BROKEN_HTTP2 = "The HTTP/2 connection ended before the answer was complete."
LONG_HEADERS = "Too large response headers: more than 64 KiB, interim answers and trailers included."
LONG_LINE = "A line of the answer's headers is too long."
# Where libcurl says nothing at all.
_UNSAID = {_E_TOO_LARGE: LONG_LINE, pycurl.E_HTTP2: BROKEN_HTTP2}


def named(code: int, detail: str, *, connected: bool, headers: bytes) -> tuple[Error, str]:
    """Our name for libcurl's error and the detail to show. It uses several of its numbers for HTTP that it cannot read as well.

    `headers` is what has come of the last status line and the headers after it.
    """
    if code == pycurl.E_GOT_NOTHING and headers:
        return Error.BAD_RESPONSE, INTERIM if headers[9:10] == b"1" and headers[12:13] in b" \r" else NO_STATUS
    unreadable = (code == pycurl.E_UNSUPPORTED_PROTOCOL and connected) or (code == pycurl.E_RECV_ERROR and detail.startswith(_UNREADABLE))
    error = Error.BAD_RESPONSE if unreadable else _ERRORS.get(code, Error.OTHER)
    return error, _SENTENCES.get(detail, detail) or _UNSAID.get(code, f"libcurl error {code}")


def unanswered(status: int, headers: bytes) -> str:
    """Why what libcurl takes for an answer is none, or nothing when it is one."""
    if status == 101:
        return SWITCHED
    # libcurl reads three digits, of however many.
    if status < 200 or not _STATUS_LINE.match(headers):
        return NO_STATUS
    return "" if b"\r\n\r\n" in headers or b"\n\n" in headers else CUT_OFF


def unsendable(error: Exception) -> str:
    """Why libcurl did not take the URL or a header."""
    if isinstance(error, UnicodeError):
        return "The URL or a header holds a character that is not ASCII."
    if isinstance(error, ValueError):
        return "The URL or a header holds a NUL character."
    return str(error)
