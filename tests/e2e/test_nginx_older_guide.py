"""What the older guide told its readers to type, over HTTPS and with a key that autostart checks.

Only the base URL is another. The host is localhost, the one name that every client resolves.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tests.clients.installed import PYTHON_1, PYTHON_3, Client
from tests.clients.speech_daemon import speech
from tests.clients.typed import run_as_typed
from tests.daemon import Daemon
from tests.e2e.test_older_guide import BASE_URL, CURL, PYTHON, folder
from tests.front import Nginx, make_certificate, printed, require_nginx
from tests.services.sounds import FRENCH_WORDS

__all__ = ["folder"]

HOST = "localhost"
KEY = "dummy"  # the guide's


@dataclass(frozen=True)
class Reader:
    """Who follows the guide: where its service is, and whose certificate it trusts."""

    daemon: Daemon
    url: str
    certificate: str


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Iterator[Reader]:
    """One autostart behind one nginx for all readers."""
    require_nginx()
    made = tmp_path_factory.mktemp("nginx-guide")
    nginx = Nginx(made / "nginx")
    make_certificate(nginx.folder / "certificates" / HOST, HOST)
    service = speech(
        {"WHISPER__ALIAS": "Systran/faster-whisper-small"}, access={"keys_env": "WHISPER_KEYS"}
    )
    (made / "autostart").mkdir()
    daemon = Daemon(made / "autostart", {HOST: service})
    daemon.environment["WHISPER_KEYS"] = KEY
    try:
        asyncio.run(daemon.start())
        nginx.start(asyncio.run(printed(daemon, *nginx.options)))
        certificate = nginx.folder / "certificates" / HOST / "fullchain.pem"
        yield Reader(daemon, f"https://{HOST}:{nginx.https_port}", str(certificate))
    finally:
        nginx.stop()
        daemon.clean_up()


def await_stopped(reader: Reader) -> int:
    """Wait until the service is stopped; return how often it was started."""
    asyncio.run(reader.daemon.wait_for_state("stopped", HOST, seconds=30))
    return reader.daemon.starts(HOST)


def test_a_wrong_bearer_key_wakes_nothing(reader, folder):
    """The command with another key gets our words, and the service sleeps on."""
    before = await_stopped(reader)
    command = CURL.replace(BASE_URL, reader.url)
    printed_text = run_as_typed(command, folder, API_KEY="no", CURL_CA_BUNDLE=reader.certificate)

    assert "unauthorized" == json.loads(printed_text)["error"]["code"]
    assert before == reader.daemon.starts(HOST)


def test_curl_gets_the_words_with_its_bearer_key(reader, folder):
    """The command as it stands wakes the service through nginx."""
    before = await_stopped(reader)
    command = CURL.replace(BASE_URL, reader.url)
    printed_text = run_as_typed(command, folder, API_KEY=KEY, CURL_CA_BUNDLE=reader.certificate)

    assert FRENCH_WORDS == json.loads(printed_text)["text"]
    assert before + 1 == reader.daemon.starts(HOST)


@pytest.mark.parametrize("client", [PYTHON_3, PYTHON_1], ids=lambda client: client.name)
def test_python_gets_the_words_with_its_key(reader, folder, client: Client):
    """The program as it stands wakes the service through nginx."""
    client.require()
    before = await_stopped(reader)
    trusting = {**client.environment, "SSL_CERT_FILE": reader.certificate}
    program = PYTHON.replace(BASE_URL, reader.url)
    printed_text = replace(client, environment=trusting).run("-c", program, folder=folder)

    assert FRENCH_WORDS + "\n" == printed_text
    assert before + 1 == reader.daemon.starts(HOST)
