"""The environment of the tests, set before Django reads its settings (`-p tests.environment` in pyproject.toml).

`TEST_DATABASE_URL` (postgres://…) runs the suite on that server instead of SQLite; `TEST_REDIS_URL` adds the tests that
want Redis. Whatever else the shell has set for Jetrelay must not leak in.
"""

import atexit
import os
import shutil
import tempfile

from cryptography.fernet import Fernet

for _name in list(os.environ):
    if _name.startswith(("WEBHOOK_", "JETSTREAM_", "JETRELAY_")) and _name != "JETRELAY_TESTS_MUST_NOT_SKIP":
        del os.environ[_name]

_folder = tempfile.mkdtemp(prefix="jetrelay-tests-")
atexit.register(shutil.rmtree, _folder, ignore_errors=True)

os.environ |= {
    "SECRET_KEY": "only-for-tests",
    "JETRELAY_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
    "JETRELAY_DATA_DIR": _folder,
    "JETRELAY_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
    "DATABASE_URL": os.environ.get("TEST_DATABASE_URL", ""),
    "BROKER_URL": "",
    "PORT": "8000",
}
