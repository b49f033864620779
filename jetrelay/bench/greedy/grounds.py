"""What a run starts with: a well-behaved tenant with its endpoint, and a greedy one with nothing.

Runs in a process that has the database as Django's: `processes.django(…)`.
"""

import json

from django.contrib.auth.models import User
from django.test import Client

from jetrelay.api.sources import api_source_of
from subscriptions import keys
from subscriptions.models import Endpoint, Membership, Subscription, Tenant

WELL_BEHAVED, GREEDY = "well-behaved", "greedy"


def build(url: str, type: str) -> None:
    """Make both, and print a key and a session of each and the endpoint's id, as JSON."""
    found = {slug: _tenant(slug) for slug in (WELL_BEHAVED, GREEDY)}
    tenant = Tenant.objects.get(slug=WELL_BEHAVED)
    endpoint = Endpoint(tenant=tenant, name="receiver", url=url)
    endpoint.full_clean()
    endpoint.save()
    Subscription.objects.create(
        endpoint=endpoint,
        source=api_source_of(tenant),
        collections=[type],
        kinds=["api"],
    )
    found[WELL_BEHAVED]["endpoint"] = endpoint.public_id
    print(json.dumps(found))


def _tenant(slug: str) -> dict[str, str]:
    """A tenant with an owner who is signed in, and a key that may do what an owner may."""
    tenant = Tenant.objects.create(slug=slug, name=slug)
    owner = User.objects.create_user(slug, password=None)
    Membership.objects.create(tenant=tenant, user=owner, role=Membership.Role.OWNER)
    client = Client()
    client.force_login(owner)
    _, text = keys.issue(tenant, "benchmark", keys.TENANTS_SCOPES, by="benchmark")
    return {"key": text, "session": client.cookies["sessionid"].value}
