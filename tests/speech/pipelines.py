"""What the Hub has: the repositories of pipelines, and where the Hub's client puts them.

It knows names and folders; the models come from tests/speech/makers.py.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from services.transcription.hub import repository_folder
from tests.services.hub import COMMIT

COMMUNITY = "pyannote/speaker-diarization-community-1"
OLDER = "pyannote/speaker-diarization-3.1"
SEGMENTATION = "pyannote/segmentation-3.0"
EMBEDDING = "pyannote/wespeaker-voxceleb-resnet34-LM"
DUTCH_ALIGNER = "jonatasgrosman/wav2vec2-large-xlsr-53-dutch"  # as whisperX has it

# As pyannote/speaker-diarization-3.1 has it.
OLDER_CONFIG = {
    "version": "3.1.0",
    "pipeline": {
        "name": "pyannote.audio.pipelines.SpeakerDiarization",
        "params": {
            "clustering": "AgglomerativeClustering",
            "embedding": EMBEDDING,
            "embedding_batch_size": 32,
            "embedding_exclude_overlap": True,
            "segmentation": SEGMENTATION,
            "segmentation_batch_size": 32,
        },
    },
    "params": {
        "clustering": {
            "method": "centroid",
            "min_cluster_size": 12,
            "threshold": 0.7045654963945799,
        },
        "segmentation": {"min_duration_off": 0.0},
    },
}


def lay_out(community: Path, folder: Path) -> dict[str, Path]:
    """Give folders for the repositories of community-1 and of 3.1, which takes its PLDA."""
    for name, part in ((SEGMENTATION, "segmentation"), (EMBEDDING, "embedding")):
        shutil.copytree(community / part, folder / name)
        (folder / name / "README.md").write_text("a model")
    (folder / OLDER).mkdir()
    (folder / OLDER / "config.yaml").write_text(yaml.safe_dump(OLDER_CONFIG))
    return {
        COMMUNITY: community,
        **{name: folder / name for name in (OLDER, SEGMENTATION, EMBEDDING)},
    }


def fill_cache(cache: Path, repositories: Mapping[str, Path]) -> None:
    """Put repositories where the Hub's client would have put them."""
    for name, folder in repositories.items():
        cached = repository_folder(name, cache)
        shutil.copytree(folder, cached / "snapshots" / COMMIT)
        (cached / "refs").mkdir()
        (cached / "refs/main").write_text(COMMIT)
