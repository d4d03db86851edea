"""autostart/portal/cache.py: the documents as files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from autostart.portal.cache import Cache
from autostart.probe import DOCUMENT_BYTES_MAX


def test_what_is_written_is_read(tmp_path):
    """Byte for byte, with the time when it was; nothing else is left in the folder."""
    cache = Cache(tmp_path / "docs")
    cache.write("a.test", b'{"openapi": "3.1.0"}')
    cache.write("a.test", b"\xff")

    found = cache.read("a.test")

    assert found is not None
    assert b"\xff" == found.body
    assert abs(datetime.now(UTC) - found.fetched_at) < timedelta(minutes=1)
    assert ["a.test.json"] == [path.name for path in (tmp_path / "docs").iterdir()]


@pytest.mark.parametrize(
    "host", ["a.test", "*.test", "::1", "x" * 300, "x" * 299 + "y", "a.test.json"], ids=len
)
def test_every_host_has_a_file_of_its_own(tmp_path, host):
    """No host leads out of the folder, or to the file of another."""
    cache = Cache(tmp_path)
    for other in ("a.test", "b.test", "*.test", "::1", "x" * 300, "x" * 301):
        cache.write(other, other.encode())

    cache.write(host, b"mine")

    assert b"mine" == cache.read(host).body  # type: ignore[union-attr]  # it was just written
    assert tmp_path == cache.path(host).parent
    assert b"b.test" == cache.read("b.test").body  # type: ignore[union-attr]  # the same


def test_what_cannot_be_read_is_not_there(tmp_path):
    """Nothing yet, a folder in its place, a file beyond the limit: none of them is a failure."""
    cache = Cache(tmp_path)
    cache.path("folder.test").mkdir()
    with cache.path("large.test").open("wb") as file:
        file.truncate(DOCUMENT_BYTES_MAX + 1)

    assert [None] * 3 == [cache.read(f"{name}.test") for name in ("new", "folder", "large")]


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path):
    """What was fetched is shown all the same, until the next start of autostart."""
    (tmp_path / "docs").write_text("a file")
    cache = Cache(tmp_path / "docs")

    cache.write("a.test", b"{}")
    cache.keep_only([])

    assert cache.read("a.test") is None


def test_only_the_declared_stay(tmp_path):
    """Documents of services that are gone are removed, what is not ours is left alone."""
    cache = Cache(tmp_path)
    for host in ("a.test", "b.test"):
        cache.write(host, b"{}")
    (tmp_path / "c.test.json.new").touch()
    (tmp_path / "notes.txt").touch()

    cache.keep_only(["a.test"])

    assert {"a.test.json", "notes.txt"} == {path.name for path in tmp_path.iterdir()}


def test_what_cannot_be_removed_is_no_failure(tmp_path):
    """The map is taken all the same: at a start, and at a reload."""
    cache = Cache(tmp_path)
    cache.write("b.test", b"{}")
    (tmp_path / "a.test.json").mkdir()

    with capture_logs() as logged:
        cache.keep_only([])

    assert ["docs-unremoved"] == [line["event"] for line in logged]
    assert ["a.test.json"] == [path.name for path in tmp_path.iterdir()]
