"""What comes by other ways than the API's bodies: forms, addresses, headers, cookies, logs, frames. None costs more than in proportion to its length."""

import inspect
import json
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
from django import forms
from django.http import QueryDict
from django.test import Client

from delivery import diagnosis, recipes
from delivery.replay.form import ReplayForm
from delivery.sources.jetstream import frames, frames_v2
from jetrelay import proxies
from jetrelay.dashboard import bodies
from jetrelay.dashboard.deliveries.filters import Filters as DeliveryFilters
from jetrelay.dashboard.endpoints.forms import NewEndpointForm, SettingsForm
from jetrelay.dashboard.endpoints.passwords import PasswordForm
from jetrelay.dashboard.events.filters import Filters as EventFilters
from jetrelay.dashboard.people.account import Password
from jetrelay.dashboard.people.audit_log import Filters as AuditFilters
from jetrelay.dashboard.people.tenants import OfATenant
from jetrelay.dashboard.stream.steering import Wish
from jetrelay.dashboard.tail.arrivals import Cursor
from jetrelay.heads import MOST_HEADER, MOST_PATH, MOST_TARGET
from jetrelay.logs import masking
from subscriptions import ids, validation
from subscriptions.form_fields import JsonBox
from subscriptions.forms import EndpointForm
from subscriptions.wishes import WishForm
from tests.builders import make_endpoint, make_member, make_tenant
from tests.nasty import TEXTS, VALUES, cost, grows_no_faster
from tests.regexes import modules_of

SIZE = 1_000_000
# Into each box of a form.
_TYPED = 150_000
# How those forms are made that want more than what was sent.
MADE: dict[type[forms.BaseForm], Callable[[Any], Any]] = {
    WishForm: lambda data: WishForm(data, None),
    NewEndpointForm: lambda data: NewEndpointForm(data, None),
    ReplayForm: lambda data: ReplayForm(data, None),
    EndpointForm: lambda data: EndpointForm(data, instance=make_endpoint(extra_headers="x: " + "v" * 4000)),
    SettingsForm: lambda data: SettingsForm(data, instance=make_endpoint(extra_headers="x: " + "v" * 4000)),
    PasswordForm: lambda data: PasswordForm(data, make_member(password="a")),
    Password: lambda data: Password(make_member(password="a"), data),
    OfATenant: lambda data: OfATenant([make_tenant()], data),
}
# A password may be of any length: its digest is made of it in one pass.
UNBOUNDED = {"password"}


def ours() -> list[type[forms.BaseForm]]:
    found = {
        value
        for module in modules_of("jetrelay", "delivery", "subscriptions")
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, forms.BaseForm) and value.__module__.split(".")[0] in ("jetrelay", "delivery", "subscriptions")
    }
    # It is only what its own kinds have in common.
    found.discard(Wish)
    return sorted(found, key=lambda form: (form.__module__, form.__qualname__))


def made(form: type[forms.BaseForm], data: Any) -> Any:
    if form in MADE:
        return MADE[form](data)
    if issubclass(form, PasswordForm):
        return form(data, make_member(password="a"))
    if issubclass(form, Wish):
        return form([], data)
    if issubclass(form, OfATenant):
        return form([make_tenant()], data)
    return form(data)


@pytest.mark.django_db
@pytest.mark.usefixtures("cheap_passwords")
def test_it_looks_at_nothing_in_a_form_for_longer_than_its_length_asks_for() -> None:
    forms_found = ours()
    assert len(forms_found) > 15
    nasty = {name: make(_TYPED) for name, make in {**TEXTS, **VALUES}.items()}
    for form in forms_found:
        names = list(made(form, {}).fields)
        for name, value in nasty.items():
            # In all of its boxes at once; then it is shown again, as a page shows it.
            data = QueryDict(mutable=True)
            data.update(dict.fromkeys([*names, *(f"initial-{each}" for each in names)], value))
            bound = made(form, data)
            found = cost(lambda bound=bound: (bound.is_valid(), bound.changed_data, str(bound)))  # type: ignore[misc]
            where = f"{form.__qualname__}, {name}: {found.steps:,} steps, {found.seconds:.2f} s"
            if found.seconds >= 3:
                # What grows with the square takes as long each time; what others have cost this thread does not.
                bound = made(form, data)
                found = cost(lambda bound=bound: (bound.is_valid(), bound.changed_data, str(bound)))  # type: ignore[misc]
            assert found.seconds < 3, where
            assert len(found.answer[2]) < (len(names) + 2) * 20 * _TYPED, where


def test_it_bounds_every_text_of_a_form() -> None:
    texts = {
        f"{form.__qualname__}.{name}"
        for form in ours()
        for name, field in getattr(form, "base_fields", {}).items()
        if isinstance(field, forms.CharField) and not (field.max_length or isinstance(field, JsonBox)) and name not in UNBOUNDED
    }
    assert texts == set()


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["depth", "one number", "depth of objects", "names of which the last stands twice"])
def test_it_says_of_a_list_in_json_that_cannot_be_read_what_to_do(name: str) -> None:
    for size in (1500, 1_000_000):
        form = SettingsForm({"retry_schedule_s": VALUES[name](size).ljust(5000, "9")}, instance=make_endpoint())
        assert form.errors["retry_schedule_s"]
        assert VALUES[name](size)[:20].replace('"', "&quot;") in str(form["retry_schedule_s"])


@pytest.mark.django_db
def test_it_puts_a_present_value_in_the_place_of_no_more_headers_than_can_be_sent() -> None:
    endpoint = make_endpoint(extra_headers="x: " + "v" * 4000)
    for lines in ("x: ***\n" * 100_000, "x: ***\n" * 500):
        form = SettingsForm({"extra_headers": lines}, instance=endpoint)
        found = cost(lambda form=form: form.errors["extra_headers"])  # type: ignore[misc]
        assert found.steps < 20_000


# --- pages that anybody reaches ------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.usefixtures("cheap_passwords")
@pytest.mark.parametrize("path", ["/login/", "/admin/login/", "/theme/"])
def test_it_looks_at_no_strangers_form_for_longer_than_its_length_asks_for(path: str) -> None:
    client = Client()
    for make in TEXTS.values():

        def post(size: int, make: Callable[[int], str] = make) -> Any:
            text = make(size)
            return client.post(path, {"username": text, "password": "a", "next": text, "theme": text})

        grows_no_faster(post, 400_000)


@pytest.mark.django_db
@pytest.mark.parametrize("unit", ["\\", "\\0", '\\"', ";", "=", '"', "a=b;"])
def test_it_reads_cookies_in_proportion_to_their_length(unit: str) -> None:
    client = Client()
    text = f'a="{unit * (MOST_HEADER // len(unit) - 10)}"'
    found = cost(lambda: client.get("/login/", headers={"Cookie": text}))
    assert found.answer.status_code == 200
    assert found.seconds < 0.5


@pytest.mark.django_db
def test_it_keeps_a_cookie_beside_one_that_is_left_out() -> None:
    answer = Client().get("/login/", headers={"Cookie": 'odd="\\\\"; theme=dark; csrftoken=' + "a" * 32})
    assert answer.wsgi_request.COOKIES == {"theme": "dark", "csrftoken": "a" * 32}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/admin/r/" + "/" * 60_000, {}, 414),
        ("/" + "a" * MOST_PATH, {}, 414),
        ("/admin/?q=" + "a" * MOST_TARGET, {}, 414),
        ("/api/v1/events?type=" + "a" * MOST_TARGET, {}, 414),
        ("/login/", {"Cookie": "a" * (MOST_HEADER + 1)}, 431),
        ("/api/v1/events", {"Authorization": "Bearer " + "a" * MOST_HEADER}, 431),
        ("/api/v1/events", {f"X-{number}": "a" * (MOST_HEADER - 10) for number in range(5)}, 431),
        ("/login/", {"Content-Type": ";" * (MOST_HEADER + 1)}, 431),
    ],
    ids=["a route", "a path", "a query", "a query of the API", "cookies", "a key", "all headers", "a type"],
)
def test_it_refuses_a_head_that_is_too_large_unread(path: str, headers: dict[str, str], status: int) -> None:
    found = cost(lambda: Client().get(path, headers=headers))
    assert found.answer.status_code == status
    assert found.answer.headers["X-Request-Id"]
    assert b"too l" in found.answer.content
    if path.startswith("/api/"):
        assert json.loads(found.answer.content)["code"] == "too_large"
    assert found.seconds < 0.5


# --- whatever else reads a stranger's text -------------------------------------------------------------------------------


def _quietly(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def wrapped(text: Any) -> None:
        try:
            read(text)
        except (ValueError, forms.ValidationError, frames.InvalidFrame, frames_v2.HostError):
            pass

    return wrapped


READERS: dict[str, tuple[Callable[[str], Any], int]] = {
    # By the longest text that each is given.
    **{name: (read, SIZE) for name, read in vars(validation).items() if name.startswith("clean_") and name != "clean_retry_schedule"},
    "log mask": (masking.text, 40_000),
    "a value in a log": (lambda text: masking.value("x", [text]), SIZE),
    "headers that were pasted": (diagnosis.read_headers, 64 * 1024),
    "signatures that were pasted": (recipes.read_signatures, 64 * 1024),
    "a body on a page": (bodies.pretty, SIZE),
    "a frame": (lambda text: frames.parse(text.encode()), frames.MAX_FRAME),
    "a frame's did": (lambda text: frames.parse(json.dumps({"did": text, "time_us": 1, "kind": "x"}).encode()), frames.MAX_FRAME),
    "a frame of the second wire": (lambda text: frames_v2.parse(text.encode()), frames.MAX_FRAME),
    "an id": (ids.from_public, SIZE),
    "addresses of proxies": (lambda text: proxies.asker("127.0.0.1", text), MOST_HEADER),
    **{
        f"{filters.__module__}: {name}": (lambda text, filters=filters, name=name: filters.read({name: text}), MOST_TARGET)  # type: ignore[misc]
        for filters in (EventFilters, DeliveryFilters, AuditFilters, Cursor)
        for name in ("q", "type", "subject", "since", "until", "from", "before", "after", "seen", "outcome", "endpoint", "actor")
    },
}


@pytest.mark.parametrize("name", READERS)
def test_it_reads_any_text_in_proportion_to_its_length(name: str, settings: Any) -> None:
    settings.JETRELAY_TRUSTED_PROXIES = [ip_network("127.0.0.0/8")]
    read, size = READERS[name]
    for make in (*TEXTS.values(), *VALUES.values()):
        grows_no_faster(_quietly(lambda part, make=make: read(make(part))), size)  # type: ignore[misc]
