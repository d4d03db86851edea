"""Makes tiny models of the sorts that whisperx loads: an aligner, and diarizers.

    python -m tests.speech.makers DIR

It knows how the folders are laid out; what they are good for is each function's docstring. Run it
in a process of its own: importing whisperx's libraries takes seconds, and they warn.
"""

import argparse
import importlib.util
import json
import shutil
import warnings
from pathlib import Path

import lightning
import numpy as np
import torch
import yaml

# It warns that torchcodec is not here; warnings are errors in tests.
with warnings.catch_warnings(action="ignore"):
    import pyannote.audio
from pyannote.audio import Model
from pyannote.audio.core.task import Problem, Resolution, Specifications
from pyannote.audio.models.embedding import WeSpeakerResNet34
from pyannote.audio.models.segmentation import PyanNet
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

from tests.speech.spectral_speaker import SpectralSpeaker

# The blank comes first; English letters by how common they are, as in WAV2VEC2_ASR_BASE_960H.
LABELS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")
SEED = 0
PLDA_DIMENSION = 128  # community-1's


def make_random_aligner(folder: Path) -> None:
    """A wav2vec2 folder with random weights: whisperx aligns with it, to times of no meaning."""
    torch.manual_seed(SEED)
    config = Wav2Vec2Config(
        vocab_size=len(LABELS),
        pad_token_id=LABELS.index("<pad>"),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    save_aligner(Wav2Vec2ForCTC(config), folder)


def save_aligner(model: Wav2Vec2ForCTC, folder: Path) -> None:
    """Write a model that answers with LABELS, and its processor, as whisperx loads them."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({label: number for number, label in enumerate(LABELS)}))
    tokenizer = Wav2Vec2CTCTokenizer(
        str(vocabulary), pad_token="<pad>", unk_token="<unk>", word_delimiter_token="|"
    )
    extractor = Wav2Vec2FeatureExtractor(
        feature_size=1,
        sampling_rate=16_000,
        padding_value=0.0,
        do_normalize=False,  # whisperx gives the model the samples as they are
        return_attention_mask=False,
    )
    Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)


def make_diarizer(folder: Path) -> None:
    """A pyannote 4 pipeline that tells voices.PAIRS and voices.THREE apart; people it does not.

    Its segmentation is trained: it is the model that whisperx brings for detecting speech. Its
    embedding is SpectralSpeaker, so the process that loads it needs the repository's root on
    sys.path.
    """
    (folder / "segmentation").mkdir(parents=True, exist_ok=True)
    found = importlib.util.find_spec("whisperx")
    assert found is not None, "whisperx is not installed"
    assert found.origin is not None, found
    trained = Path(found.origin).parent / "assets/pytorch_model.bin"
    shutil.copy(trained, folder / "segmentation/pytorch_model.bin")
    embedding = SpectralSpeaker()
    embedding.specifications = _describe_embedding(seconds=5.0)
    _save(embedding, folder / "embedding")
    _make_plda(folder / "plda", embedding.dimension, 8)  # loaded by pyannote, used by VBx alone
    _write_config(
        folder,
        clustering="AgglomerativeClustering",
        parameters={
            # Measured cosine distances: up to 0.30 within a voice, from 0.72 between two.
            "clustering": {"method": "average", "threshold": 0.5, "min_cluster_size": 3},
            "segmentation": {"threshold": 0.7, "min_duration_off": 0.1},
        },
    )


def make_random_diarizer(folder: Path) -> None:
    """A pipeline laid out as pyannote/speaker-diarization-community-1, with random weights.

    It finds speakers at random, or none: it is for shapes, not for truths.
    """
    torch.manual_seed(SEED)
    segmentation = PyanNet(
        sincnet={"stride": 10},
        lstm={"hidden_size": 16, "num_layers": 1},
        linear={"hidden_size": 16, "num_layers": 1},
    )
    segmentation.specifications = Specifications(
        problem=Problem.MONO_LABEL_CLASSIFICATION,
        resolution=Resolution.FRAME,
        duration=10.0,
        classes=["speaker#1", "speaker#2", "speaker#3"],
        powerset_max_classes=2,
        permutation_invariant=True,
    )
    segmentation.build()
    _save(segmentation, folder / "segmentation")
    embedding = WeSpeakerResNet34()
    embedding.specifications = _describe_embedding(seconds=10.0)
    _save(embedding, folder / "embedding")
    _make_plda(folder / "plda", embedding.dimension, PLDA_DIMENSION)
    _write_config(
        folder,
        clustering="VBxClustering",
        parameters={
            "clustering": {"threshold": 0.6, "Fa": 0.07, "Fb": 0.8},
            "segmentation": {"min_duration_off": 0.0},
        },
    )


def _describe_embedding(seconds: float) -> Specifications:
    return Specifications(
        problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=seconds
    )


def _save(model: Model, folder: Path) -> None:
    """Write the model as the checkpoint of lightning that pyannote reads."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "pytorch-lightning_version": lightning.__version__,
        "pyannote.audio": {
            "versions": {"torch": torch.__version__, "pyannote.audio": pyannote.audio.__version__},
            "architecture": {"module": type(model).__module__, "class": type(model).__name__},
            "specifications": model.specifications,
        },
    }
    torch.save(checkpoint, folder / "pytorch_model.bin")


def _make_plda(folder: Path, source: int, target: int) -> None:
    """Write a projection of embeddings from so many numbers to so many, at random."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    projection, _ = np.linalg.qr(rng.standard_normal((source, target)))
    np.savez(
        folder / "xvec_transform.npz",
        mean1=np.zeros(source),
        mean2=np.zeros(target),
        lda=projection,
    )
    spread = np.linspace(10, 0.1, target)
    np.savez(folder / "plda.npz", mu=np.zeros(target), tr=np.eye(target), psi=spread)


def _write_config(folder: Path, clustering: str, parameters: dict[str, dict[str, object]]) -> None:
    pipeline = {
        "name": "pyannote.audio.pipelines.SpeakerDiarization",
        "params": {
            "clustering": clustering,
            "segmentation": "$model/segmentation",
            "segmentation_batch_size": 8,
            "segmentation_step": 0.2,
            "embedding": "$model/embedding",
            "embedding_batch_size": 8,
            "embedding_exclude_overlap": True,
            "plda": "$model/plda",
        },
    }
    config = {
        "dependencies": {"pyannote.audio": "4.0.0"},
        "pipeline": pipeline,
        "params": parameters,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def main() -> None:
    """Make all three in the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder: Path = parser.parse_args().folder
    make_random_aligner(folder / "random_aligner")
    make_random_diarizer(folder / "random_diarizer")
    make_diarizer(folder / "diarizer")


if __name__ == "__main__":
    main()
