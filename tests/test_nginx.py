"""The proxy that the documentation recommends, in front of the real server.

`deploy/nginx/jetrelay.conf`.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from jetrelay.bench.processes import free_port, running, wait_for_port
from jetrelay.front import caps
from jetrelay.front.served import HEAD_MS
from tests.web import Web, serving
from tests.whole import ROOT, engines

pytestmark = pytest.mark.whole

CONFIGURATION = (ROOT / "deploy" / "nginx" / "jetrelay.conf").read_text()
_NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
_FRAME = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {configuration}
}}
"""


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A site that tells what it was told, seen through the proxy."""
    if _NGINX is None:
        pytest.skip("wants nginx")
    folder: Path = tmp_path_factory.mktemp("nginx")
    port, log = free_port(), folder / "output.log"
    with (
        engines("embedded", folder / "data") as env,
        serving(env, folder / "web.log", "tests.echo:application") as web,
    ):
        # Without TLS, and on ports that are free.
        plain = re.sub(r"\n *ssl_.*;", "", CONFIGURATION).replace("443 ssl", f"127.0.0.1:{port}")
        plain = plain.replace("127.0.0.1:8000", f"127.0.0.1:{web.port}")
        plain = plain.replace("/var/log/nginx", str(folder))
        configuration = folder / "nginx.conf"
        configuration.write_text(_FRAME.format(folder=folder, configuration=plain))
        argv = [_NGINX, "-c", str(configuration), "-e", str(folder / "nginx.log")]
        with running(argv, env, log) as process:
            wait_for_port(port, process, log)
            yield Web(web.program, port)
            logged = (folder / "access.log").read_text()
            assert "/said/aloud" in logged
            assert "/inbox/" not in logged
            assert "/welcome/" not in logged


def test_paths_that_are_secrets_stay_out_of_its_log(proxied: Web) -> None:
    """The fixture looks into the log at its end, when it is written."""
    for path in ("/said/aloud", "/inbox/the-token", "/welcome/the-link"):
        assert requests.get(f"{proxied.url}{path}", timeout=10).status_code == 200


def test_it_says_who_asks_whatever_the_client_says(proxied: Web) -> None:
    said = {"X-Forwarded-For": "1.1.1.1", "X-Forwarded-Proto": "https", "Forwarded": "for=1.1.1.1"}
    said |= {"X_Forwarded_For": "2.2.2.2", "X_Forwarded_Proto": "https"}
    found = requests.get(proxied.url, headers=said, timeout=30).json()
    assert found["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
    assert found["HTTP_X_FORWARDED_PROTO"] == "http"
    assert "HTTP_FORWARDED" not in found
    assert "1.1.1.1" not in json.dumps(found)
    assert "2.2.2.2" not in json.dumps(found)


def test_a_body_in_chunks_comes_through_whole(proxied: Web) -> None:
    found = requests.post(proxied.url, data=iter([b"abc", b"def"]), timeout=30).json()
    assert (found["body"], found["CONTENT_LENGTH"]) == ("abcdef", "6")


def test_half_a_body_does_not_reach_the_site(proxied: Web) -> None:
    begun = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\nusername="
    with ExitStack() as held:
        for _ in range(90):
            proxied.connect(held).sendall(begun)
        assert requests.get(proxied.url, timeout=30).status_code == 200
        # And one address gets so many connections, and no more.
        for _ in range(20):
            proxied.connect(held).sendall(begun)
        assert requests.get(proxied.url, timeout=30).status_code == 503


def test_it_takes_what_the_site_takes() -> None:
    sizes = [int(size) * 1024 * 1024 for size in re.findall(r"max_body_size (\d+)m;", CONFIGURATION)]
    assert sizes == [caps.PAGES, caps.most(caps.BATCH_PATHS[0])]
    assert max(caps.most(path) for path in ("/", "/inbox/x", "/api/v1/endpoints")) <= sizes[0]
    assert f"location = {caps.BATCH_PATHS[0]} " in CONFIGURATION
    (kept,) = re.findall(r"upstream jetrelay {[^}]*keepalive_timeout (\d+)s;", CONFIGURATION)
    assert int(kept) * 1000 < HEAD_MS
