"""The pages of JETRELAY_DEBUG show no password, wherever it stands."""

import sys

import pytest
from django.test import RequestFactory
from django.views.debug import technical_500_response
from pytest_django import Settings

from jetrelay.logs import masking

PASSWORD = "sesame-9f8e7d6c5b"
URL = f"redis://:{PASSWORD}@redis:6379/0"


@pytest.mark.parametrize("accept", ["text/html", "text/plain"])
def test_it_hides_the_passwords_of_settings_requests_and_variables(settings: Settings, accept: str) -> None:
    masking.know([PASSWORD])
    settings.DEBUG, settings.CELERY_BROKER_URL = True, URL
    settings.CACHES = {"default": {"LOCATION": URL}}
    request = RequestFactory().get("/", headers={"Accept": accept}, BROKER_URL=URL)
    try:
        password_by_another_name, inside = URL, {"a": [PASSWORD]}
        raise ValueError(f"cannot connect to {URL}")
    except ValueError:
        page = technical_500_response(request, *sys.exc_info()).content.decode()
    assert password_by_another_name
    assert inside
    assert "CELERY_BROKER_URL" in page
    assert "cannot connect" in page
    assert PASSWORD not in page
