"""Environment variables become settings, or one line per mistake."""

import pytest
import yaml

from services.faster_whisper.settings import Settings, WhisperSettings
from tests.services.speech_server import ROOT


def test_defaults_are_finite():
    """Whoever sets nothing has limits all the same."""
    settings = Settings.from_environment()

    assert settings.max_upload == 500_000_000
    assert settings.max_audio_seconds == 4 * 3600
    assert settings.max_waiting == 16
    assert settings.request_timeout_seconds == 60
    assert settings.whisper.model == "small"


def test_every_setting_reaches_the_container(monkeypatch):
    """What stands in .env is passed on by name; what does not is left to its default."""
    project = yaml.safe_load((ROOT / "services/faster_whisper/compose.yaml").read_text())
    passed = project["services"]["faster-whisper"]["environment"]
    own = {name.upper() for name in Settings.model_fields} - {"WHISPER"}
    nested = {f"WHISPER__{name.upper()}" for name in WhisperSettings.model_fields}

    assert own | nested <= set(passed)
    assert all(value.startswith(f"${{{name}:-") for name, value in passed.items())
    for name, value in passed.items():
        monkeypatch.setenv(name, value.removesuffix("}").partition(":-")[2])
    Settings.from_environment()


def test_the_variables_that_users_know_are_read(monkeypatch):
    """The names of fedirz/faster-whisper-server, and sizes as people write them."""
    for name, value in {
        "WHISPER__MODEL": "Systran/faster-whisper-small",
        "WHISPER__INFERENCE_DEVICE": "cpu",
        "WHISPER__COMPUTE_TYPE": "int8",
        "WHISPER__CPU_THREADS": "2",
        "WHISPER__DEVICE_INDEX": "",
        "MAX_UPLOAD": "1GiB",
        "LOG_LEVEL": "DEBUG",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_environment()

    assert settings.whisper.model == "Systran/faster-whisper-small"
    assert (settings.whisper.inference_device, settings.whisper.compute_type) == ("cpu", "int8")
    assert (settings.whisper.cpu_threads, settings.whisper.device_index) == (2, 0)
    assert (settings.max_upload, settings.log_level) == (2**30, "debug")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WHISPER__INFERENCE_DEVICE", "tpu"),
        ("WHISPER__CPU_THREADS", "many"),
        ("WHISPER__MODLE", "small"),
        ("MAX_UPLOAD", "huge"),
        ("MAX_UPLOAD", "0"),
        ("MAX_WAITING", "-1"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_bad_variable_is_named_with_its_value(monkeypatch, name, value):
    """The process ends with a line that the operator can act on."""
    monkeypatch.setenv(name, value)

    with pytest.raises(SystemExit, match=rf"^{name}: .*{value}.* is not allowed: .+$"):
        Settings.from_environment()


def test_all_bad_variables_are_told_at_once(monkeypatch):
    """Nobody wants to learn of them one by one."""
    monkeypatch.setenv("MAX_UPLOAD", "huge")
    monkeypatch.setenv("LOG_LEVEL", "loud")

    with pytest.raises(SystemExit, match=r"MAX_UPLOAD[^\n]*\nLOG_LEVEL"):
        Settings.from_environment()
