"""All settings, from the environment. The README's table says what each variable does."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

import jetrelay
from delivery.sources.jetstream.compression import read_v1_dictionary
from jetrelay import environment as env
from jetrelay import generated_secrets, logs, own_files
from subscriptions import ourselves, validation

VERSION = jetrelay.__version__
BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(env.text("JETRELAY_DATA_DIR") or BASE_DIR / "data").absolute()

try:
    _generated = generated_secrets.load(DATA_DIR)
except ValueError as error:
    raise ImproperlyConfigured(f"JETRELAY_DATA_DIR: {error}") from error

# Both may be empty here: `up` generates them, and every other command says so when it needs one.
SECRET_KEY = env.text("SECRET_KEY") or _generated.get("SECRET_KEY", "")
JETRELAY_ENCRYPTION_KEYS = env.encryption_keys(
    "JETRELAY_ENCRYPTION_KEYS", env.text("JETRELAY_ENCRYPTION_KEYS") or _generated.get("JETRELAY_ENCRYPTION_KEYS", "")
)

DEBUG = env.flag("JETRELAY_DEBUG", default=False)
PORT = env.integer("PORT", 8000, 1, 65535)
# Where `up` listens.
HOST = env.one("JETRELAY_HOST", env.text("JETRELAY_HOST") or "127.0.0.1", ourselves.bare)


def _own_name(host: str) -> list[str]:
    """The name of one address that is not loopback's."""
    name = ourselves.in_url(ourselves.reachable(host))
    return [] if name in ("localhost", "127.0.0.1", "[::1]") else [name]


# Where people reach the site from outside, for a reverse proxy with TLS in front of it.
PUBLIC_URL = env.site("JETRELAY_PUBLIC_URL")
# By the last of these it is asked by its own deliveries to the built-in inbox.
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *_own_name(HOST), *env.items("JETRELAY_ALLOWED_HOSTS", env.host_name)]
if PUBLIC_URL:
    ALLOWED_HOSTS.append(urlsplit(PUBLIC_URL).hostname or "")
    CSRF_TRUSTED_ORIGINS = [f"{urlsplit(PUBLIC_URL).scheme}://{urlsplit(PUBLIC_URL).netloc}"]

JETRELAY_TRUSTED_PROXIES = env.items("JETRELAY_TRUSTED_PROXIES", env.network)
# Half a year. Browsers then refuse plain HTTP for so long, whatever happens to the certificate; 0 ends it.
JETRELAY_HSTS_SECONDS = env.integer("JETRELAY_HSTS_SECONDS", 180 * 24 * 3600, 0, 10 * 365 * 24 * 3600)
# What `check --deploy` asks for and is not ours to give: other hosts below the same name, which HSTS would bind too, need not speak TLS,
# and who owns the whole domain asks for a place on the browsers' lists.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
if PUBLIC_URL.startswith("https://"):
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    SECURE_HSTS_SECONDS = JETRELAY_HSTS_SECONDS
    if JETRELAY_HSTS_SECONDS == 0:
        SILENCED_SYSTEM_CHECKS.append("security.W004")
    if JETRELAY_TRUSTED_PROXIES:
        # `jetrelay.proxies` lets nobody else say it.
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
        SECURE_SSL_REDIRECT = True
        SECURE_SSL_HOST = urlsplit(PUBLIC_URL).netloc
        # Probes and the built-in inbox's deliveries come from inside, by plain HTTP. A client of the API has sent its key by then: it must
        # not be led to believe that all is well, and most would repeat a POST as a GET.
        SECURE_REDIRECT_EXEMPT = [r"^health(/|$)", r"^metrics(/|$)", r"^inbox/", r"^api/v1(/|$)"]
    else:
        # No request can be told from one by https: a redirect would lead in circles. The proxy redirects, and `doctor` tells the operator.
        SILENCED_SYSTEM_CHECKS.append("security.W008")

# --- The stream and the first endpoint -------------------------------------------------------------------------

# Two by default: a host can be silent, or leave something out, and only another one shows it. They differ in coast and wire.
JETSTREAM_HOSTS = env.items(
    "JETSTREAM_HOSTS",
    validation.clean_stream_url,
    f"wss://jetstream.us-east.bsky.network{validation.V2_PATH},wss://jetstream.us-west.bsky.network{validation.V1_PATH}",
)
if not 1 <= len(JETSTREAM_HOSTS) <= 8:
    raise ImproperlyConfigured(f"JETSTREAM_HOSTS names {len(JETSTREAM_HOSTS)} hosts: name one to eight.")
JETSTREAM_ZSTD_DICTIONARY = env.text("JETSTREAM_ZSTD_DICTIONARY")
if JETSTREAM_ZSTD_DICTIONARY:
    env.one("JETSTREAM_ZSTD_DICTIONARY", JETSTREAM_ZSTD_DICTIONARY, read_v1_dictionary)
JETSTREAM_COLLECTIONS = env.items("JETSTREAM_COLLECTIONS", validation.clean_pattern)
JETSTREAM_DIDS = env.items("JETSTREAM_DIDS", validation.clean_did)
JETSTREAM_KINDS = env.items("JETSTREAM_KINDS", validation.clean_stream_kind, "commit")

WEBHOOK_URL = env.text("WEBHOOK_URL") and env.one("WEBHOOK_URL", env.text("WEBHOOK_URL"), validation.clean_webhook_url)
WEBHOOK_SECRET = env.text("WEBHOOK_SECRET") and env.one("WEBHOOK_SECRET", env.text("WEBHOOK_SECRET"), validation.clean_secret)
WEBHOOK_BEARER_TOKEN = env.text("WEBHOOK_BEARER_TOKEN") and env.one("WEBHOOK_BEARER_TOKEN", env.text("WEBHOOK_BEARER_TOKEN"), validation.clean_bearer_token)
if "sync" in JETSTREAM_KINDS and not any(url.endswith(validation.V2_PATH) for url in JETSTREAM_HOSTS):
    raise ImproperlyConfigured(f"JETSTREAM_KINDS: sync comes on the v2 wire alone, and no URL in JETSTREAM_HOSTS ends in {validation.V2_PATH}.")
if WEBHOOK_URL and "commit" in JETSTREAM_KINDS and not (JETSTREAM_COLLECTIONS or JETSTREAM_DIDS):
    raise ImproperlyConfigured(
        "WEBHOOK_URL is set, but nothing says what to send there: set JETSTREAM_COLLECTIONS"
        " (such as app.bsky.feed.post, app.bsky.feed.* or * for everything) or JETSTREAM_DIDS."
    )

# --- Delivery --------------------------------------------------------------------------------------------------

JETRELAY_LANES = env.integer("JETRELAY_LANES", 8, 1, 256)
JETRELAY_ALLOWED_NETWORKS = env.items("JETRELAY_ALLOWED_NETWORKS", env.network)
# After so many days in which everything failed, an endpoint is disabled; 0: never.
JETRELAY_DISABLE_AFTER_DAYS = env.integer("JETRELAY_DISABLE_AFTER_DAYS", 5, 0, 365)
# There is no "for ever": such tables end with a full disk. Who wants years says how many.
JETRELAY_RETENTION_DAYS = env.integer("JETRELAY_RETENTION_DAYS", 7, 1, 3650)
JETRELAY_DEAD_LETTER_DAYS = env.integer("JETRELAY_DEAD_LETTER_DAYS", 30, 1, 3650)
JETRELAY_AUDIT_DAYS = env.integer("JETRELAY_AUDIT_DAYS", 365, 1, 3650)
# Whether an endpoint that is registered through the API has to answer a challenge before it receives.
JETRELAY_VERIFY_ENDPOINTS = env.flag("JETRELAY_VERIFY_ENDPOINTS", default=True)

# Who may read /metrics: whoever shows the token, and whoever asks from one of the networks.
JETRELAY_METRICS_TOKEN = env.text("JETRELAY_METRICS_TOKEN") and env.one(
    "JETRELAY_METRICS_TOKEN", env.text("JETRELAY_METRICS_TOKEN"), validation.clean_bearer_token
)
JETRELAY_METRICS_NETWORKS = env.items("JETRELAY_METRICS_NETWORKS", env.network, "127.0.0.0/8,::1/128")
# A delivery that has been due for longer, for no reason of its endpoint's, makes /health/ready say so.
JETRELAY_READY_MAX_LAG_S = env.integer("JETRELAY_READY_MAX_LAG_S", 300, 1, 86_400)

# How long the database works for one statement of a page or of a call of the API.
JETRELAY_REQUEST_LIMIT_S = env.integer("JETRELAY_REQUEST_LIMIT_S", 5, 1, 300)

# Requests per second that one key may make to the API, unless it has a limit of its own.
JETRELAY_API_RATE_LIMIT = env.integer("JETRELAY_API_RATE_LIMIT", 200, 1, 1_000_000)

# What one tenant may have, unless the operator gives it a quota of its own: `subscriptions/allowance.py` says what each is about.
JETRELAY_MAX_ENDPOINTS = env.integer("JETRELAY_MAX_ENDPOINTS", 1_000, 0, 1_000_000)
JETRELAY_MAX_SUBSCRIPTIONS = env.integer("JETRELAY_MAX_SUBSCRIPTIONS", 10_000, 0, 10_000_000)
JETRELAY_MAX_SUBSCRIPTIONS_PER_ENDPOINT = env.integer("JETRELAY_MAX_SUBSCRIPTIONS_PER_ENDPOINT", 100, 0, 1_000_000)
JETRELAY_MAX_SOURCES = env.integer("JETRELAY_MAX_SOURCES", 50, 1, 100_000)
JETRELAY_MAX_KEYS = env.integer("JETRELAY_MAX_KEYS", 100, 0, 1_000_000)
JETRELAY_MAX_NEW_KEYS_PER_HOUR = env.integer("JETRELAY_MAX_NEW_KEYS_PER_HOUR", 60, 0, 1_000_000)
JETRELAY_MAX_MEMBERS = env.integer("JETRELAY_MAX_MEMBERS", 500, 0, 1_000_000)
JETRELAY_MAX_DELIVERIES_PER_EVENT = env.integer("JETRELAY_MAX_DELIVERIES_PER_EVENT", 1_000, 0, 1_000_000)
JETRELAY_MAX_PENDING_DELIVERIES = env.integer("JETRELAY_MAX_PENDING_DELIVERIES", 1_000_000, 1, 1_000_000_000)
JETRELAY_MAX_REPLAYS = env.integer("JETRELAY_MAX_REPLAYS", 10, 0, 10_000)
JETRELAY_MAX_AUDIT_ENTRIES_PER_DAY = env.integer("JETRELAY_MAX_AUDIT_ENTRIES_PER_DAY", 10_000, 1, 10_000_000)
JETRELAY_MAX_ANSWERS = env.integer("JETRELAY_MAX_ANSWERS", 10_000, 0, 10_000_000)
JETRELAY_MAX_ANSWER_BYTES = env.integer("JETRELAY_MAX_ANSWER_BYTES", 16 * 1024 * 1024, 0, 1_000_000_000)
JETRELAY_MAX_REQUESTS_PER_S = env.integer("JETRELAY_MAX_REQUESTS_PER_S", 1_000, 1, 1_000_000)

# --- Database and broker ---------------------------------------------------------------------------------------

DATABASES = {"default": env.database("DATABASE_URL", DATA_DIR)}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    env.make_folder(Path(str(DATABASES["default"]["NAME"])).parent, "DATABASE_URL" if env.text("DATABASE_URL") else "JETRELAY_DATA_DIR")
# Whether processes start on a database that a newer version has migrated.
JETRELAY_ACCEPT_NEWER_DATABASE = env.flag("JETRELAY_ACCEPT_NEWER_DATABASE", default=False)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CELERY_BROKER_URL, CELERY_BROKER_TRANSPORT_OPTIONS = env.broker("BROKER_URL", DATA_DIR)
# Whatever command this is, it opens these files. What was too open is told once there are logs, by `jetrelay.apps`.
JETRELAY_FILES: dict[str, Any] = {
    "data_dir": DATA_DIR,
    "database": str(DATABASES["default"]["NAME"]) if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3" else "",
    "default": DATA_DIR == BASE_DIR / "data",
}
JETRELAY_FILES_MENDED = own_files.mend(**JETRELAY_FILES)

CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {"delivery.drain": {"queue": "lanes"}}
# A thread for every lane, so that no lane waits for another's, and one each for the sweep, for pruning, for cancelling and for replays.
CELERY_WORKER_CONCURRENCY = JETRELAY_LANES + 4
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# Nothing here uses remote control, and on the file-system broker it would leave files behind.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULER = "jetrelay.beat:PatientScheduler"
# Beat writes these into the database whenever it starts: what each is for is read in the admin, and one that was disabled by hand runs again.
# An `expires` among the options would be dropped on the way there.
CELERY_BEAT_SCHEDULE = {
    "sweep": {
        "task": "delivery.sweep",
        "enabled": True,
        "description": "Wakes every lane that has work due and no owner.",
        "schedule": 1.0,
        # A sweep that waited longer than this has been overtaken by the next one.
        "options": {"expire_seconds": 5, "queue": "default"},
    },
    "prune": {
        "task": "delivery.prune",
        "enabled": True,
        "description": "Deletes what is older than it is kept for.",
        # Often, so that each run finds little; a run ends by itself after four minutes.
        "schedule": 300.0,
        "options": {"expire_seconds": 240, "queue": "default"},
    },
    "cancel": {
        "task": "delivery.cancel",
        "enabled": True,
        "description": "Cancels what is still pending for endpoints that were deleted.",
        # Whoever deletes an endpoint asks for it at once: this finds what a crash or a lost message left.
        "schedule": 60.0,
        "options": {"expire_seconds": 50, "queue": "default"},
    },
    "replay": {
        "task": "delivery.replay",
        "enabled": True,
        "description": "Takes the next step of each replay that is running.",
        # Goes on with those that a crash or a lost wake has left, and with those of a slow pace. One small query if there is none.
        "schedule": 2.0,
        "options": {"expire_seconds": 5, "queue": "default"},
    },
}

# --- Django ----------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "jetrelay.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_celery_beat",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "subscriptions",
    "delivery",
    "jetrelay.apps.JetrelayConfig",
    "jetrelay.api",
    "jetrelay.inbox",
    "jetrelay.dashboard",
]
MIDDLEWARE = [
    # First, so that every answer has its id, and every line that is logged meanwhile.
    "jetrelay.logs.requests.identified",
    # Around everything that may ask the database.
    "jetrelay.patience.patient_for",
    # Then these, which see what the others answer themselves.
    "jetrelay.safety.with_safety_headers",
    # Before anybody reads what stands above the body.
    "jetrelay.heads.bounded",
    "jetrelay.proxies.behind_proxies",
    "jetrelay.metrics.admission.by_any_name",
    "jetrelay.dashboard.access.confine_pages",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "jetrelay.askers.learned",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "jetrelay.dashboard.audit.addressed",
    "jetrelay.unanswered.when_database_is_away",
]
ROOT_URLCONF = "jetrelay.urls"
WSGI_APPLICATION = "jetrelay.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "jetrelay.dashboard.access.access",
                "jetrelay.dashboard.theme.theme",
            ],
        },
    },
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
# Members need not be staff, and the admin lets nobody else in.
LOGIN_URL = "login"
LOGOUT_REDIRECT_URL = LOGIN_URL
LOGIN_REDIRECT_URL = "/"
# How long the link to a first password works.
PASSWORD_RESET_TIMEOUT = 24 * 3600

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Files are served as they lie in the packages, so that no collectstatic stands between a clone and a first page.
WHITENOISE_USE_FINDERS = True

SESSION_ENGINE = "jetrelay.sessions"
SESSION_COOKIE_HTTPONLY = True
# Pages of JETRELAY_DEBUG show settings and variables, but no passwords.
DEFAULT_EXCEPTION_REPORTER = "jetrelay.error_pages.Reporter"
DEFAULT_EXCEPTION_REPORTER_FILTER = "jetrelay.error_pages.Filter"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

# Shared by all processes where there is a Redis; else each has its own. The counts of who guesses passwords are kept apart from what pages
# remember for each endpoint, so that nobody pushes them out by looking at pages.
CACHES = {
    name: {
        "BACKEND": "jetrelay.caching.Forgetful",
        "LOCATION": CELERY_BROKER_URL,
        "KEY_PREFIX": "jetrelay",
        "OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 1, "socket_keepalive": True, "health_check_interval": 10},
    }
    if CELERY_BROKER_URL.startswith("redis")
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": name, "OPTIONS": {"MAX_ENTRIES": 50_000}}
    for name in ("default", "tries")
}

# The largest body that the API takes is a batch of events.
DATA_UPLOAD_MAX_MEMORY_SIZE = 10 * 1024 * 1024
REST_FRAMEWORK = {
    "EXCEPTION_HANDLER": "jetrelay.api.problems.respond",
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_SCHEMA_CLASS": "jetrelay.api.schema.OperationSchema",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Jetrelay",
    "VERSION": VERSION,
    "OAS_VERSION": "3.1.0",
    "ENFORCE_NON_BLANK_FIELDS": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "POSTPROCESSING_HOOKS": ["jetrelay.api.schema.finish"],
}

LOG_LEVEL = env.text("JETRELAY_LOG_LEVEL", "INFO").upper()
if LOG_LEVEL not in ("DEBUG", "INFO", "WARNING", "ERROR"):
    raise ImproperlyConfigured(f"JETRELAY_LOG_LEVEL is {LOG_LEVEL!r}: use DEBUG, INFO, WARNING or ERROR.")
JETRELAY_LOG_FORMAT = env.choice("JETRELAY_LOG_FORMAT", logs.FORMS, "console")
# A terminal is for people, who want to see what goes wrong; a program that reads JSON can choose for itself.
JETRELAY_LOG_ATTEMPTS = env.choice("JETRELAY_LOG_ATTEMPTS", ("all", "failed", "none"), "all" if JETRELAY_LOG_FORMAT == "json" else "failed")
JETRELAY_LOG_REQUESTS = env.flag("JETRELAY_LOG_REQUESTS", default=LOG_LEVEL == "DEBUG")
logs.know_secrets(
    *(SECRET_KEY, *JETRELAY_ENCRYPTION_KEYS, WEBHOOK_SECRET, WEBHOOK_BEARER_TOKEN, JETRELAY_METRICS_TOKEN, str(DATABASES["default"].get("PASSWORD") or "")),
    urls=(env.text("DATABASE_URL"), CELERY_BROKER_URL),
)
LOGGING_CONFIG = "jetrelay.logs.configure"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "jetrelay.logs.rendering.Formatter", "form": JETRELAY_LOG_FORMAT, "colour": logs.coloured()}},
    "handlers": {"console": {"class": "jetrelay.logs.stream.Handler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        "jetrelay": {"level": LOG_LEVEL},
        "subscriptions": {"level": LOG_LEVEL},
        "delivery": {"level": LOG_LEVEL},
        # Without the handlers that Django brings, which have another form.
        "django": {"level": "INFO", "handlers": []},
        "django.server": {"level": "WARNING", "handlers": [], "propagate": True},
        # Its warnings name the path, and an inbox's path is its secret.
        "django.request": {"level": "ERROR"},
        # Anyone may send a wrong Host, as often as they like: it is answered, and no news.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        "django.security.TooManyFieldsSent": {"level": "CRITICAL"},
        # Tasks wake lanes several times a second: a line for each would bury every other line.
        "celery": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        # … but this one, which says once that the worker is ready.
        "celery.apps.worker": {"level": LOG_LEVEL},
        # The server writes to a stream of its own, unless it is told to write where all do. Its level is what it was started with.
        "_granian": {"handlers": ["console"], "propagate": False},
    },
}
