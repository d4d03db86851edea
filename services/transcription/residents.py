"""Which models are in memory: as many as a budget allows, the longest unused go first."""

import gc
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from services.transcription.memory import give_back

M = TypeVar("M")

log = logging.getLogger(__name__)


class Residents(Generic[M]):
    """Models in memory, by id. Belongs to one thread; others may read `ids` and `taken_bytes`.

    `load` makes a model, `measure` tells its bytes before it is loaded. Room is made first, so
    that the old and the new are never there together. A model larger than the budget is loaded
    too: then it is alone. `on_load` is told the id, the seconds, and the error if one was raised.
    """

    def __init__(
        self,
        *,
        bytes_max: int,
        measure: Callable[[str], int],
        load: Callable[[str], M],
        on_load: Callable[[str, float, Exception | None], None] = lambda *_: None,
    ) -> None:
        self._bytes_max = bytes_max
        self._measure = measure
        self._load = load
        self._on_load = on_load
        self._models: OrderedDict[str, tuple[M, int]] = OrderedDict()
        self.ids: tuple[str, ...] = ()  # the longest unused first

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._models

    @property
    def taken_bytes(self) -> int:
        """What the models take, as measured before they were loaded."""
        return sum(taken for _, taken in list(self._models.values()))

    def get(self, model_id: str) -> M:
        """Give a model, loaded if it was not; raises what `load` and `measure` raise."""
        if model_id not in self._models:
            taken = self._measure(model_id)
            self._make_room(taken)
            self._models[model_id] = (self._load_told(model_id), taken)
        self._models.move_to_end(model_id)
        self.ids = tuple(self._models)
        return self._models[model_id][0]

    def remove(self, model_id: str) -> bool:
        """Let go of a model; False if it was not there."""
        found = self._models.pop(model_id, None) is not None
        self.ids = tuple(self._models)
        gc.collect()  # PyTorch's models hold on to themselves
        give_back()
        return found

    def _make_room(self, needed_bytes: int) -> None:
        while self._models and self.taken_bytes + needed_bytes > self._bytes_max:
            oldest = next(iter(self._models))
            log.info("evicting model=%s", oldest)
            self.remove(oldest)

    def _load_told(self, model_id: str) -> M:
        began = time.monotonic()
        try:
            model = self._load(model_id)
        except Exception as error:
            self._on_load(model_id, time.monotonic() - began, error)
            raise
        give_back()
        seconds = time.monotonic() - began
        log.info("loaded model=%s seconds=%.2f", model_id, seconds)
        self._on_load(model_id, seconds, None)
        return model
