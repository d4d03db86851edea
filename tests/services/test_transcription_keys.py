"""Who may use a service whose operator has set keys."""

import pytest

from services.transcription.keys import Keys
from services.transcription.settings import ServiceSettings
from tests.services.sounds import RECORDING
from tests.services.test_transcription_app import client_of

KEYS = "first-secret, second-secret"


@pytest.mark.parametrize(
    ("written", "key", "accepted"),
    [
        ("", None, True),
        ("", "anything", True),
        (" , ", None, True),
        (KEYS, "first-secret", True),
        (KEYS, "second-secret", True),
        ("a b", "b", True),
        (KEYS, None, False),
        (KEYS, "", False),
        (KEYS, "first-secre", False),
        (KEYS, "first-secret,", False),
        (KEYS, KEYS, False),
    ],
)
def test_each_of_the_keys_is_accepted_and_nothing_else(written, key, accepted):
    """Without keys everybody is."""
    assert Keys(written).accept(key) == accepted


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/audio/transcriptions"),
        ("POST", "/v1/audio/translations"),
        ("POST", "/v1/audio/speech/timestamps"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/digits"),
        ("POST", "/v1/models/digits"),
        ("GET", "/api/ps"),
        ("POST", "/api/ps/digits"),
        ("DELETE", "/api/ps/digits"),
        ("GET", "/metrics"),
    ],
)
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic Zmlyc3Q6c2VjcmV0", "first"])
async def test_a_request_without_a_right_key_is_refused_as_openai_does(method, path, authorization):
    """401 with its code; the body is not even looked at."""
    headers = {"authorization": authorization} if authorization else {}
    async with client_of(api_key=KEYS) as client:
        response = await client.request(method, path, headers=headers)

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (401, "invalid_api_key")
    assert error["type"] == "invalid_request_error"
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["x-should-retry"] == "false"
    assert "secret" not in response.text


@pytest.mark.parametrize("path", ["/health", "/ready", "/busy", "/docs", "/openapi.json"])
async def test_orchestrators_and_readers_need_no_key(path):
    """A stopped service must be watched, and the docs tell how to send a key."""
    async with client_of(api_key=KEYS) as client:
        response = await client.get(path)

    assert response.status_code in {200, 503}


async def test_a_right_key_is_served():
    """Sent as openai's clients send it."""
    async with client_of(api_key=KEYS) as client:
        response = await client.post(
            "/v1/audio/transcriptions",
            files={"file": ("a.wav", RECORDING)},
            data={"model": "digits"},
            headers={"authorization": "Bearer second-secret"},
        )

    assert response.status_code == 200


@pytest.mark.parametrize("written", [",", " , ", "clé"])
def test_keys_that_are_none_end_the_service(written, monkeypatch):
    """What is meant to close it must not leave it open; the value is not shown."""
    monkeypatch.setenv("API_KEY", written)
    with pytest.raises(SystemExit, match=r"API_KEY: its value is not allowed: .*ASCII") as raised:
        ServiceSettings.from_environment()

    assert repr(written) not in str(raised.value)


def test_keys_are_shown_nowhere():
    """Neither in a log of the settings nor of the keys."""
    settings = ServiceSettings(api_key=KEYS)

    assert "secret" not in f"{settings!r} {settings} {Keys(KEYS)!r}"
