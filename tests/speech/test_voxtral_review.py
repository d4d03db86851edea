"""What the path of a GPU does otherwise, as far as a CPU can tell: its shorter numbers."""

import pytest
import torch

from services.voxtral import on_transformers
from services.voxtral.on_transformers import OnTransformers
from tests.speech.test_voxtral_model import ANSWER, WORDS, chat, noise, transcribe


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_shorter_numbers_write_the_same(voxtral_model, monkeypatch, dtype):
    """Sound, weights and a batch of pieces fit together in the types that are a GPU's."""
    monkeypatch.setattr(on_transformers, "_dtype", lambda _device: dtype)
    model = OnTransformers(voxtral_model, device="cpu", batch_size=2)
    written = transcribe(model, [noise(seconds) for seconds in (0.2, 3, 30)], language="fr")

    assert dtype == model._model.dtype
    assert [WORDS] * 3 == [each.text for each in written]
    assert ANSWER.strip() == chat(model).text
