"""Voxtral by transformers, in this process.

To be imported in the worker's thread: torch and what is on top of it take seconds to import.
"""

import gc
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoProcessor,
    BatchFeature,
    GenerationConfig,
    StoppingCriteria,
    StoppingCriteriaList,
    VoxtralForConditionalGeneration,
)
from transformers.utils.logging import disable_progress_bar

from services.transcription.audio import SAMPLE_RATE
from services.transcription.downloads import Downloads
from services.transcription.errors import EngineError, FetchFailed, is_out_of_memory
from services.transcription.hub import is_offline
from services.transcription.memory import give_back
from services.voxtral.files import MissingError, find, is_folder, shown_name
from services.voxtral.model import Samples, Written
from services.voxtral.settings import Settings

log = logging.getLogger(__name__)

# On stderr, of a service whose log is read by machines.
disable_progress_bar()

_GPU_BATCH_SIZE = 8
# More are no faster there, and each takes memory (measured with two cores).
_CPU_BATCH_SIZE = 1
# Of the model's card, for chat: what is wanted first is the likeliest.
_AGAIN = {"do_sample": True, "temperature": 0.2, "top_p": 0.95}

Check = Callable[[], None]


def load(settings: Settings, check: Check, downloads: Downloads | None = None) -> "OnTransformers":
    """Give the model of VOXTRAL_MODEL, downloaded if it must be.

    `check` may raise to wait no longer for the download, which goes on beside the work, and ends
    with `downloads`. Raises FetchFailed, EngineError, and what the libraries raise.
    """
    folder = _folder(settings.voxtral_model, check, downloads)
    check()
    model = OnTransformers(
        folder, device=device_of(settings.voxtral_device), batch_size=settings.voxtral_batch_size
    )
    check()
    return model


def device_of(asked: str) -> str:
    """Give where to compute: "auto" is a GPU if there is one."""
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return asked


def _folder(name: str, check: Check, downloads: Downloads | None) -> Path:
    try:
        return find(name)
    except MissingError as error:
        if is_folder(name):
            # To clients, not where on this machine it is.
            told = f"VOXTRAL_MODEL: {str(error).replace(name, shown_name(name))}"
            raise EngineError(told, code="load_failed") from error
        command = ["-m", "services.voxtral.fetch", name]
        if is_offline():
            ahead = f"python {' '.join(command)} downloads it ahead"
            raise FetchFailed(
                f"{error}, and HF_HUB_OFFLINE is set; {ahead}", code="fetch_failed"
            ) from error
    downloads = downloads or Downloads()
    # It has a job's whole time: what waits for this model can do nothing without it.
    downloads.fetch(f"the model {name}", [sys.executable, *command], check=check, patient=True)
    try:
        return find(name)
    except MissingError as error:
        raise FetchFailed(str(error), code="fetch_failed") from error


class OnTransformers:
    """The model in memory; see `services.voxtral.model.Model`. Belongs to one thread."""

    def __init__(self, folder: Path, *, device: str, batch_size: int = 0) -> None:
        """Load what is in a folder; `batch_size` 0 is what suits the device."""
        self.device = device
        self._batch_size = batch_size or (_CPU_BATCH_SIZE if device == "cpu" else _GPU_BATCH_SIZE)
        self._dtype = _dtype(device)
        self._processor = AutoProcessor.from_pretrained(str(folder), local_files_only=True)
        # By way of the main memory: only with accelerate, which is not here, does it go straight
        # to a GPU.
        self._model: Any = (
            VoxtralForConditionalGeneration.from_pretrained(
                str(folder), dtype=self._dtype, local_files_only=True
            )
            .to(device)
            .eval()
        )
        # It is the processor that pads, and only what stands on the right is written on.
        assert self._processor.tokenizer.padding_side == "left", self._processor
        log.debug(
            "computing device=%s dtype=%s batch_size=%d", device, self._dtype, self._batch_size
        )

    @property
    def alive(self) -> bool:
        """Always: it ends with this process."""
        return True

    def transcribe(
        self,
        pieces: Sequence[Samples],
        *,
        language: str | None,
        tokens_max: int,
        check: Check,
        report: Callable[[int, Written], None],
    ) -> None:
        """Write down what is said in each piece.

        Where memory does not suffice for a batch, the rest is done in smaller ones.
        """
        size, done = self._batch_size, 0
        while done < len(pieces):
            check()
            batch = pieces[done : done + size]
            try:
                heard = self._hear(batch, language, tokens_max, check)
            except (RuntimeError, MemoryError) as error:
                if len(batch) == 1 or not is_out_of_memory(error):
                    raise
                heard = None
            if heard is None:  # the error, which holds on to the batch, is gone by now
                size = len(batch) // 2
                log.warning("out of memory, so the batches are smaller batch_size=%d", size)
                self._free()
                continue
            for written in heard:
                report(done, written)
                done += 1

    def chat(
        self,
        prompt: str,
        *,
        tokens_max: int,
        schema: Mapping[str, Any] | None,  # noqa: ARG002 -- nothing here can enforce it
        again: bool,
        check: Check,
    ) -> Written:
        """Answer a prompt of text; `again` gives up the likeliest answer."""
        inputs = self._processor.apply_chat_template([{"role": "user", "content": prompt}])
        [written] = self._generate(inputs, tokens_max, check, **(_AGAIN if again else {}))
        return written

    def close(self) -> None:
        """Let go of the memory."""
        self._model = self._processor = None
        self._free()

    def _hear(
        self, batch: Sequence[Samples], language: str | None, tokens_max: int, check: Check
    ) -> list[Written]:
        inputs = self._processor.apply_transcription_request(
            audio=list(batch),
            model_id="voxtral",  # of no effect, but required
            language=[language] * len(batch),
            sampling_rate=SAMPLE_RATE,
            format=["WAV"] * len(batch),
        )
        return self._generate(inputs, tokens_max, check)

    def _generate(
        self, inputs: BatchFeature, tokens_max: int, check: Check, **sampling: object
    ) -> list[Written]:
        inputs = inputs.to(self.device, dtype=self._dtype)
        config = GenerationConfig(
            max_new_tokens=tokens_max, **({"do_sample": False} | sampling), **self._ends()
        )
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                generation_config=config,
                stopping_criteria=StoppingCriteriaList([_Checked(check)]),
            )
        rows = output[:, inputs.input_ids.shape[1] :].tolist()
        texts = self._processor.batch_decode(rows, skip_special_tokens=True)
        ends = _as_set(config.eos_token_id)
        return [
            Written(text=text.strip(), complete=not ends.isdisjoint(row))
            for text, row in zip(texts, rows, strict=True)
        ]

    def _ends(self) -> dict[str, object]:
        """Give the tokens that begin, end and pad, as the model has them."""
        own = self._model.generation_config
        end = own.eos_token_id
        assert end is not None, own
        pad = own.pad_token_id
        return {
            "bos_token_id": own.bos_token_id,
            "eos_token_id": end,
            "pad_token_id": min(_as_set(end)) if pad is None else pad,
        }

    def _free(self) -> None:
        gc.collect()  # PyTorch's models hold on to themselves
        give_back()
        if self.device != "cpu":
            torch.cuda.empty_cache()


class _Checked(StoppingCriteria):  # type: ignore[misc]  # transformers has no types
    """Called after each token; ends nothing by itself, but `check` may raise."""

    def __init__(self, check: Check) -> None:
        self._check = check

    def __call__(
        self,
        input_ids: torch.Tensor,
        scores: torch.Tensor,  # noqa: ARG002 -- the library passes it
        **_options: object,
    ) -> torch.Tensor:
        self._check()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def _as_set(tokens: int | list[int]) -> set[int]:
    return set(tokens) if isinstance(tokens, list) else {tokens}


def _dtype(device: str) -> torch.dtype:
    """Give the numbers to compute with: half as long on a GPU.

    Those before Ampere only imitate bfloat16, slowly.
    """
    if device == "cpu":
        return torch.float32
    return (
        torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    )
