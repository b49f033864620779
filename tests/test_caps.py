"""How long a body may be, and whose memory it takes."""

import pytest
from django.conf import settings
from django.test import Client

from jetrelay.front import caps
from jetrelay.inbox.models import Inbox
from jetrelay.shares import Asker
from tests.api import api_of
from tests.builders import make_endpoint, make_member, make_tenant

pytestmark = pytest.mark.django_db


def session_of(user: object) -> dict[str, str]:
    client = Client()
    client.force_login(user)  # type: ignore[arg-type]
    return {"PATH_INFO": "/endpoints/", "HTTP_COOKIE": f"sessionid={client.cookies[settings.SESSION_COOKIE_NAME].value}"}


def test_all_people_of_a_tenant_are_one_owner_and_all_its_keys_another() -> None:
    tenant = make_tenant()
    people = {caps.looked_up(session_of(make_member(tenant, username=f"m{number}"))) for number in range(3)}
    assert len(people) == 1
    keys = {caps.looked_up({"PATH_INFO": "/api/v1/events/batch", "HTTP_AUTHORIZATION": f"Bearer {api_of(tenant).text}"}) for _ in range(3)}
    assert len(keys) == 1
    assert people.isdisjoint(keys)
    other = caps.looked_up(session_of(make_member(make_tenant(slug="other"), username="other")))
    assert other not in people


def test_an_inbox_is_found_by_its_token_and_by_its_endpoint() -> None:
    inbox = Inbox.objects.create(endpoint=make_endpoint())
    found = {caps.looked_up({"PATH_INFO": f"/inbox/{end}"}) for end in (inbox.token, f"of/{inbox.endpoint.public_id}")}
    assert found == {Asker("inbox", str(inbox.pk))}


@pytest.mark.parametrize("path", ["/inbox/", "/inbox/nobody", "/inbox/of/nobody", "/inbox/of/ep_01a2043032cf7738966bf3d2088e7d01"])
def test_what_is_no_inbox_opens_nothing(path: str) -> None:
    assert caps.looked_up({"PATH_INFO": path}) is None


@pytest.mark.parametrize("cookie", ["", "sessionid=made-up", "sessionid=", "other=1"])
def test_a_session_that_there_is_not_opens_nothing(cookie: str) -> None:
    assert caps.looked_up({"PATH_INFO": "/endpoints/", "HTTP_COOKIE": cookie}) is None
