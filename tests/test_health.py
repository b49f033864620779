from unittest import mock

import pytest
from django.conf import settings
from django.db import OperationalError
from django.test import Client

from subscriptions.models import ConfigVersion

pytestmark = pytest.mark.django_db


def test_it_says_ok_with_its_version(client: Client) -> None:
    response = client.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "version": settings.VERSION})
    assert "no-store" in response["Cache-Control"]


def test_it_names_the_part_that_fails_and_keeps_the_details_to_itself(client: Client) -> None:
    with mock.patch.object(ConfigVersion, "current", side_effect=OperationalError("connection to 10.0.0.7 refused")):
        response = client.get("/health")
    assert response.status_code == 503
    assert list(response.json()["problems"]) == ["database"]
    assert "10.0.0.7" not in response.content.decode()


def test_it_takes_no_post(client: Client) -> None:
    assert client.post("/health").status_code == 405
