"""Two addresses for one inbox.

`/inbox/<token>`: GET shows what arrived, POST adds to it. Whoever knows the token may do both.
`/inbox/of/<endpoint>`: POST delivers to it what the endpoint's secret has signed, and nothing else. It is the endpoint's URL, which many
people see. GET leads those who see the endpoint to the other address.
"""

from functools import wraps
from typing import Any
from uuid import UUID

from django.http import HttpResponse, HttpResponseBase, HttpResponseNotAllowed
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from jetrelay.dashboard.access import HtmxRequest, View, confined, members_page
from jetrelay.inbox.models import Inbox, digest_of
from jetrelay.inbox.reading import read
from jetrelay.inbox.receive import KEPT, receive
from subscriptions.models import Endpoint

MAX_BODY = 1024 * 1024
# The page is fetched anew with every arrival: enough to see what happens, few enough to stay quick.
SHOWN = 30


def _private(view: View) -> View:
    """The address is the secret: it must reach neither other sites nor search engines."""

    @wraps(view)
    def wrapped(request: HtmxRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = confined(view(request, *args, **kwargs))
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Robots-Tag"] = "noindex, nofollow"
        return response

    return wrapped


@csrf_exempt
@_private
def inbox(request: HtmxRequest, token: str) -> HttpResponseBase:
    if request.method == "POST":
        return _accept(request, _find(token), token)
    if request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    return render(request, "inbox/inbox.html", _context(_find(token)))


@csrf_exempt
@_private
def inbox_of(request: HtmxRequest, id: UUID) -> HttpResponseBase:
    if request.method == "POST":
        found = get_object_or_404(Inbox.objects.present().defer("token"), endpoint=id)
        return _accept(request, found)
    if request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    return _lead(request, id)


@members_page
def _lead(request: HtmxRequest, id: UUID) -> HttpResponseBase:
    theirs = Endpoint.objects.for_tenants(request.access.sees).present().filter(pk=id)
    found = get_object_or_404(Inbox.objects.present(), endpoint__in=theirs)
    return redirect("inbox", found.token)


@require_safe
@_private
def messages_fragment(request: HtmxRequest, token: str) -> HttpResponseBase:
    """What arrived; 204 when that is nothing new, so that the page under the reader's eyes stays still."""
    found = _find(token)
    if request.GET.get("received") == str(found.received):
        return HttpResponse(status=204)
    return render(request, "inbox/_messages.html", _context(found))


def _find(token: str) -> Inbox:
    return get_object_or_404(Inbox.objects.present(), token_digest=digest_of(token))


def _accept(request: HtmxRequest, found: Inbox, token: str = "") -> HttpResponse:
    if "HTTP_TRANSFER_ENCODING" in request.META:
        # What is read says how long it is: the inbox was not found when this one came.
        return HttpResponse("The body was not read: send it again.\n", status=503, content_type="text/plain", headers={"Retry-After": "1"})
    body = request.read(MAX_BODY + 1)
    if len(body) > MAX_BODY:
        return HttpResponse(f"The body is larger than {MAX_BODY:,} bytes.\n", status=413, content_type="text/plain")
    message = receive(found, request, body, token)
    if message.verified:
        return HttpResponse("ok", content_type="text/plain")
    return HttpResponse(f"{message.verdict}\n", status=401, content_type="text/plain")


def _context(inbox: Inbox) -> dict[str, Any]:
    return {"inbox": inbox, "arrivals": read(inbox, SHOWN), "kept": KEPT}
