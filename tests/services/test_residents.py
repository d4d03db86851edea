"""Which models stay in memory, and which must go."""

import psutil
import pytest

from services.transcription.residents import Residents

SIZES = {"a": 40, "b": 40, "c": 40, "large": 500}


class Loads:
    """Records what is loaded and what is told about it."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.told: list[tuple[str, bool]] = []
        self.present: list[tuple[str, ...]] = []
        self.residents: Residents[str] = Residents(
            bytes_max=100,
            measure=SIZES.__getitem__,
            load=self.load,
            on_load=lambda model, _seconds, error: self.told.append((model, error is None)),
        )

    def load(self, model: str) -> str:
        self.present.append(self.residents.ids)
        if model == "c" and "c" in self.loaded:
            raise RuntimeError
        self.loaded.append(model)
        return model.upper()


def test_a_model_is_loaded_once():
    """The second request finds it."""
    loads = Loads()

    assert [loads.residents.get("a") for _ in range(3)] == ["A"] * 3
    assert loads.loaded == ["a"]
    assert loads.told == [("a", True)]


def test_the_longest_unused_goes_before_the_next_is_loaded():
    """So the old and the new are never in memory together."""
    loads = Loads()
    for model in ("a", "b", "a", "c"):
        loads.residents.get(model)

    assert loads.present == [(), ("a",), ("a",)]
    assert loads.residents.ids == ("a", "c")
    assert loads.residents.taken_bytes == 80


def test_a_model_larger_than_the_budget_is_alone():
    """It is what somebody asked for."""
    loads = Loads()
    for model in ("a", "b", "large"):
        loads.residents.get(model)
    assert loads.residents.ids == ("large",)
    loads.residents.get("a")

    assert loads.residents.ids == ("a",)


def test_a_removed_model_is_gone():
    """Once; its bytes are free again."""
    loads = Loads()
    loads.residents.get("a")

    assert [loads.residents.remove("a"), loads.residents.remove("a")] == [True, False]
    assert loads.residents.taken_bytes == 0
    assert "a" not in loads.residents


def test_a_load_that_fails_leaves_nothing():
    """It is told, and the next request tries again."""
    loads = Loads()
    loads.residents.get("c")
    loads.residents.remove("c")
    for _ in range(2):
        with pytest.raises(RuntimeError):
            loads.residents.get("c")

    assert loads.residents.ids == ()
    assert loads.told == [("c", True), ("c", False), ("c", False)]


def test_an_unknown_size_loads_nothing():
    """Its files are not there."""
    loads = Loads()
    with pytest.raises(KeyError):
        loads.residents.get("absent")

    assert loads.loaded == []


def test_the_memory_of_a_removed_model_is_given_back():
    """To the machine, not to the C library, which would keep it for itself."""
    above = []

    def load(_model: str) -> list[bytearray]:
        # Many pieces, and one above them that stays: the heap cannot simply shrink.
        pieces = [bytearray(b"x" * 100_000) for _ in range(2000)]
        above.append(bytearray(b"x" * 100_000))
        return pieces

    residents = Residents(bytes_max=100, measure=lambda _model: 1, load=load)
    before = psutil.Process().memory_info().rss
    residents.get("a")
    loaded = psutil.Process().memory_info().rss
    residents.remove("a")
    after = psutil.Process().memory_info().rss

    assert loaded - before > 150_000_000
    assert after - before < 50_000_000
