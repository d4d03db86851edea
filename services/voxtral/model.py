"""What a model that hears and writes owes to this service, whoever runs it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]  # [samples], mono, 16 kHz


@dataclass(frozen=True)
class Written:
    """What a model wrote."""

    text: str
    complete: bool  # False: it was cut off at the most tokens it might write


class Model(Protocol):
    """A Voxtral in memory, here or elsewhere. All methods are called in the worker's thread.

    `check` is called often, at least for every token or every tenth of a second, and may raise to
    give up: then the work ends soon, on a GPU, too. Failures are raised as they are in the library
    (RuntimeError, MemoryError, OSError), or as EngineError: see `services.transcription.errors`.
    """

    device: str  # "cpu", "cuda", or the address of a server

    @property
    def alive(self) -> bool:
        """Whether it is of any use to ask again; if not, it is to be closed and loaded anew."""
        ...

    def transcribe(
        self,
        pieces: Sequence[Samples],
        *,
        language: str | None,
        tokens_max: int,
        check: Callable[[], None],
        report: Callable[[int, Written], None],
    ) -> None:
        """Write down what is said in each piece; `report` is told its number and its text.

        Pieces are worked on in batches, and reported in order. `tokens_max` is for each.
        """
        ...

    def chat(
        self,
        prompt: str,
        *,
        tokens_max: int,
        schema: Mapping[str, Any] | None,
        again: bool,
        check: Callable[[], None],
    ) -> Written:
        """Answer a prompt of text.

        `schema` is what the answer must conform to, where that can be enforced. `again`: the last
        answer to this prompt was of no use, so another one is wanted.
        """
        ...

    def close(self) -> None:
        """Let go of the memory, or of the process."""
        ...
