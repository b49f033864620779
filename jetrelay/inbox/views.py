"""`/inbox/<token>`: POST delivers to it, GET shows what arrived. Whoever knows the token may do both."""

from functools import wraps
from typing import Any

from django.http import HttpResponse, HttpResponseBase, HttpResponseNotAllowed
from django.shortcuts import get_object_or_404, render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from jetrelay.dashboard.access import HtmxRequest, View, confined
from jetrelay.inbox.models import Inbox
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
        return _accept(request, token)
    if request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    return render(request, "inbox/inbox.html", _context(_find(token)))


@require_safe
@_private
def messages_fragment(request: HtmxRequest, token: str) -> HttpResponseBase:
    """What arrived; 204 when that is nothing new, so that the page under the reader's eyes stays still."""
    found = _find(token)
    if request.GET.get("received") == str(found.received):
        return HttpResponse(status=204)
    return render(request, "inbox/_messages.html", _context(found))


def _find(token: str) -> Inbox:
    # Without its secret, the inbox of a deleted endpoint has nothing to verify with.
    present = Inbox.objects.exclude(endpoint__state=Endpoint.State.DELETED)
    return get_object_or_404(present.select_related("endpoint"), token=token)


def _accept(request: HtmxRequest, token: str) -> HttpResponse:
    found = _find(token)
    body = request.read(MAX_BODY + 1)
    if len(body) > MAX_BODY:
        return HttpResponse(f"The body is larger than {MAX_BODY:,} bytes.\n", status=413, content_type="text/plain")
    message = receive(found, request, body)
    if message.verified:
        return HttpResponse("ok", content_type="text/plain")
    return HttpResponse(f"{message.verdict}\n", status=401, content_type="text/plain")


def _context(inbox: Inbox) -> dict[str, Any]:
    return {"inbox": inbox, "arrivals": read(inbox, SHOWN), "kept": KEPT}
