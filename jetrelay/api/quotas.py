"""`/quotas`: what the tenant may have, and what of it is used."""

from rest_framework.request import Request
from rest_framework.response import Response

from jetrelay.api.views import ApiView
from jetrelay.usage import usage
from subscriptions.models import Tenant


class Quotas(ApiView):
    scopes = {"GET": "deliveries:read"}

    def get(self, request: Request) -> Response:
        tenant = Tenant.objects.get(pk=self.tenant.pk)
        rows = [
            {
                "name": each.name,
                "words": each.of,
                "used": each.used,
                "more": each.more,
                "most": each.most,
            }
            for each in usage([tenant])[tenant.pk]
        ]
        return Response({"data": rows})
