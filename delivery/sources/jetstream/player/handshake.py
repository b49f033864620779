"""Answers a request: plain HTTP for the dictionary, 404 for another path, 400 for bad parameters, or it is let in."""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response as HttpResponse
from websockets.typing import Subprotocol

from delivery.sources.jetstream.player import options
from delivery.sources.jetstream.player.connection import HostConnection
from delivery.sources.jetstream.player.dictionaries import Dictionary
from delivery.sources.jetstream.player.host import DICTIONARY_PATH, V1_PATH, V2_PATH, Host
from delivery.sources.jetstream.player.subscription import XrpcError, read_dictionary_query, read_subscription, unknown_dictionary

SUBPROTOCOL = Subprotocol("xrpc.v1.json")


class Reception:
    """For the requests to one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def check(self, connection: ServerConnection, http: HttpRequest) -> HttpResponse | None:
        """The answer to this request; None, with the connection's admission set, lets it in."""
        assert isinstance(connection, HostConnection)
        url = urlsplit(http.path)
        if url.path == DICTIONARY_PATH:
            return self._dictionary(url.query)
        if url.path not in (V1_PATH, V2_PATH):
            return connection.respond(HTTPStatus.NOT_FOUND, f"There is nothing at {url.path}: subscribe at {V1_PATH} or {V2_PATH}.\n")
        if "websocket" not in http.headers.get("Upgrade", "").lower():
            return None  # the library says what is missing
        handshake = self._host.count_handshake()
        await self._stall(connection, handshake)
        if self._host.refuses(handshake):
            return self._unavailable(connection)
        try:
            if url.path == V1_PATH:
                self._admit_v1(connection, http, url.query)
            else:
                self._admit_v2(connection, url.query)
        except options.BadOption as error:
            return connection.respond(HTTPStatus.BAD_REQUEST, f"{error}\n")
        except XrpcError as error:
            return _xrpc_error(error)
        return None

    async def _stall(self, connection: HostConnection, handshake: int) -> None:
        wrong = self._host.misbehaviour
        if wrong.handshake_connections is not None and handshake > wrong.handshake_connections:
            return
        connection.handshake_byte_every_s = wrong.handshake_byte_every_s
        if wrong.handshake_never:
            await asyncio.shield(connection.connection_lost_waiter)

    def _unavailable(self, connection: HostConnection) -> HttpResponse:
        response = connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "This host is warming up.\n")
        if (seconds := self._host.misbehaviour.retry_after_s) is not None:
            response.headers["Retry-After"] = str(seconds)
        return response

    def _admit_v1(self, connection: HostConnection, http: HttpRequest, query: str) -> None:
        request = options.read_query(query)
        asked_by = "Socket-Encoding" if "zstd" in http.headers.get("Socket-Encoding", "") else "compress" if request.compressed else None
        dictionary = self._host.dictionaries.v1 if asked_by else None
        if asked_by and dictionary is None:
            raise options.BadOption(asked_by, "this server sends uncompressed frames only: it was given no v1 dictionary")
        if asked_by and "permessage-deflate" in http.headers.get("Sec-WebSocket-Extensions", ""):
            raise options.BadOption(asked_by, "zstd does not go with permessage-deflate: offer one of them")
        connection.admission = self._host.admit(request, 1, dictionary)

    def _admit_v2(self, connection: HostConnection, query: str) -> None:
        request = read_subscription(query)
        dictionary = None if request.dictionary_id is None else self._v2_dictionary(request.dictionary_id)
        connection.admission = self._host.admit(request, 2, dictionary)

    def _v2_dictionary(self, asked: int | None) -> Dictionary:
        current = self._host.dictionaries.v2
        if asked is not None and asked != current.id:
            raise unknown_dictionary(asked, current.id)
        return current

    def _dictionary(self, query: str) -> HttpResponse:
        try:
            dictionary = self._v2_dictionary(read_dictionary_query(query))
        except XrpcError as error:
            return _xrpc_error(error)
        return _response(HTTPStatus.OK, "application/octet-stream", dictionary.data)


def select_subprotocol(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """That of v2, where a client offers it; a client that offers none or another is served all the same."""
    is_v2 = connection.request is not None and urlsplit(connection.request.path).path == V2_PATH
    return SUBPROTOCOL if is_v2 and SUBPROTOCOL in offered else None


def _xrpc_error(error: XrpcError) -> HttpResponse:
    return _response(HTTPStatus.BAD_REQUEST, "application/json", error.body)


def _response(status: HTTPStatus, content_type: str, body: bytes) -> HttpResponse:
    headers = Headers({"Connection": "close", "Content-Length": str(len(body)), "Content-Type": content_type})
    return HttpResponse(status.value, status.phrase, headers, body)
