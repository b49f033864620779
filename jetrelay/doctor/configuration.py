"""The settings: what can be read and is still unwise, or does not fit together."""

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from jetrelay import environment
from jetrelay.doctor.finding import Finding, ok, problem, warning
from jetrelay.doctor.registry import Check

# Django's own bounds for a key (security.W009).
KEY_LENGTH, KEY_VARIETY = 50, 5
_MAKE_KEY = "openssl rand -base64 48 | tr -d '\\n'"


def keys() -> Iterator[Finding]:
    try:
        key = settings.SECRET_KEY
    except ImproperlyConfigured:
        key = ""
    if not key:
        yield problem("SECRET_KEY is not set", f"`manage.py up` makes one in the data directory; elsewhere set it yourself: {_MAKE_KEY}")
    elif len(key) < KEY_LENGTH or len(set(key)) < KEY_VARIETY:
        yield warning(
            f"SECRET_KEY has {len(key)} characters, {len(set(key))} of them different", f"Sessions can be forged with it: make a long one: {_MAKE_KEY}"
        )
    if not settings.JETRELAY_ENCRYPTION_KEYS:
        yield problem(
            "JETRELAY_ENCRYPTION_KEYS is not set: no stored secret can be read", "`manage.py up` makes one in the data directory; elsewhere set it yourself."
        )
    elif key:
        yield ok(f"SECRET_KEY is set, and {len(settings.JETRELAY_ENCRYPTION_KEYS)} encryption key{'s'[: len(settings.JETRELAY_ENCRYPTION_KEYS) != 1]}")


def addresses() -> Iterator[Finding]:
    public, outside = settings.PUBLIC_URL, is_open_to_others()
    if settings.DEBUG:
        advice = "Error pages show code and settings to whoever asks. Leave JETRELAY_DEBUG out."
        yield (problem if outside else warning)("JETRELAY_DEBUG is on", advice)
    if not public and outside:
        advice = "Put a proxy with TLS in front of it and set JETRELAY_PUBLIC_URL=https://…: cookies are then secure."
        yield warning(f"it can be reached from other machines ({_where()}), and JETRELAY_PUBLIC_URL is not set", advice)
    if public.startswith("http://") and not is_local(urlsplit(public).hostname or ""):
        yield warning(f"JETRELAY_PUBLIC_URL is {public}: passwords and API keys travel in the clear", "Put a proxy with TLS in front of it, and write https://")
    if public.startswith("https://") and not settings.JETRELAY_TRUSTED_PROXIES:
        advice = "Name the network of the proxy that ends TLS. Until then everybody has the proxy's address, and plain HTTP is not led to https here."
        yield warning("JETRELAY_PUBLIC_URL is https, and JETRELAY_TRUSTED_PROXIES names no proxy", advice)
    if not is_local(settings.HOST) and not settings.JETRELAY_TRUSTED_PROXIES:
        advice = (
            "A proxy in front of it bounds what strangers may hold (docs/operation.md), and its network belongs in"
            " JETRELAY_TRUSTED_PROXIES. Without one, listen on 127.0.0.1."
        )
        yield warning(f"it listens on {settings.HOST}, and JETRELAY_TRUSTED_PROXIES names no proxy", advice)
    everybody = [str(network) for network in settings.JETRELAY_TRUSTED_PROXIES if network.prefixlen == 0]
    if everybody:
        yield problem(f"JETRELAY_TRUSTED_PROXIES has {', '.join(everybody)}: anybody may say who they are", "Name the proxy's own network alone.")
    if any(network.prefixlen == 0 for network in settings.JETRELAY_ALLOWED_NETWORKS):
        yield warning(
            "JETRELAY_ALLOWED_NETWORKS opens every network to every endpoint", "Name only those that endpoints are in: else they reach this machine too."
        )
    if "*" in settings.ALLOWED_HOSTS:
        yield warning("JETRELAY_ALLOWED_HOSTS has *", "Name the hosts: links in answers follow what the request says otherwise.")
    yield ok(f"answers as {', '.join(settings.ALLOWED_HOSTS)}; public URL: {public or 'none'}")


def engines() -> Iterator[Finding]:
    postgresql, redis = str(settings.DATABASES["default"]["ENGINE"]).endswith("postgresql"), settings.CELERY_BROKER_URL.startswith("redis")
    if postgresql and not redis:
        advice = "Wakes reach no other machine, and each web process counts guesses and rates for itself. Set BROKER_URL=redis://… before there is a second."
        yield warning("PostgreSQL, with files as the broker", advice)
    elif redis and not postgresql:
        yield warning("Redis, with SQLite as the database", "One machine alone can use SQLite. Set DATABASE_URL=postgres://… before there is a second.")
    else:
        yield ok("PostgreSQL and Redis" if postgresql else "SQLite and files: for one machine")


def retention() -> Iterator[Finding]:
    days, dead = settings.JETRELAY_RETENTION_DAYS, settings.JETRELAY_DEAD_LETTER_DAYS
    if dead < days:
        yield warning(
            f"dead letters go after {dead} days, delivered ones after {days}", "JETRELAY_DEAD_LETTER_DAYS is the time that people have to replay them."
        )
    else:
        yield ok(f"events and settled deliveries for {days} days, dead letters for {dead}")


def misspelt() -> Iterator[Finding]:
    names = environment.unknown()
    if names:
        yield warning(f"nothing reads {', '.join(names)}", "Is it misspelt? The README's table has every setting.")
    else:
        yield ok("every variable that looks like ours is read")


def django() -> Iterator[Finding]:
    """Django's own checks: those for deployment as well, where the public URL is https."""
    found = [each for each in checks.run_checks(include_deployment_checks=settings.PUBLIC_URL.startswith("https://")) if not each.is_silenced()]
    for each in found:
        yield (problem if each.is_serious() else warning)(f"{each.id}: {' '.join(each.msg.split())}", each.hint or "See `manage.py check --deploy`.")
    if not found:
        yield ok("no issues")


def is_open_to_others() -> bool:
    """Whether somebody on another machine may get an answer."""
    return not is_local(settings.HOST) or any(not is_local(host) for host in settings.ALLOWED_HOSTS)


def is_local(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _where() -> str:
    return ", ".join(dict.fromkeys(host for host in (settings.HOST, *settings.ALLOWED_HOSTS) if not is_local(host)))


CHECKS = (
    Check("keys", keys),
    Check("addresses", addresses),
    Check("engines", engines),
    Check("retention", retention),
    Check("variables", misspelt),
    Check("django", django),
)
