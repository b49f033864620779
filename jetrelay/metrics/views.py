"""`GET /metrics`, in the text format of Prometheus or in OpenMetrics, whichever is asked for."""

import logging

from django.db import Error
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client.exposition import choose_encoder

from jetrelay.metrics import admission
from jetrelay.metrics.collector import Busy, registry

log = logging.getLogger(__name__)


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    if refused := admission.refusal(request):
        return refused
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    try:
        return HttpResponse(encode(registry), content_type=content_type)
    except Busy:
        return _unavailable("Somebody else is reading the metrics, and the database has not answered yet.")
    except Error as error:
        log.warning("metrics: the database does not answer: %s", error)
        return _unavailable("The database does not answer, or has not been migrated: see /health/ready.")


def _unavailable(words: str) -> HttpResponse:
    return HttpResponse(f"{words}\n", status=503, content_type="text/plain; charset=utf-8")
