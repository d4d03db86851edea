"""The Hugging Face Hub's cache, and the Hub's refusals in words for operators."""

import os
from collections.abc import Sequence
from pathlib import Path

# Read when the client is imported: it would tell the Hub which libraries are here.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# Itself it loads nothing before it is used: the client behind it takes a tenth of a second.
import huggingface_hub
from huggingface_hub import constants

TOKENS_PAGE = "https://huggingface.co/settings/tokens"

_UNAUTHORIZED, _FORBIDDEN = 401, 403


def cache_folder() -> Path:
    """Give where the Hub's client keeps what it downloads ($HF_HOME)."""
    return Path(constants.HF_HUB_CACHE)


def use_token() -> bool:
    """Let the Hub's client have the operator's token under its older name, too; False for none."""
    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGINGFACE_TOKEN")
    if token:  # the client reads this name alone
        os.environ["HF_TOKEN"] = token
    return bool(token)


def is_offline() -> bool:
    """Tell whether the operator has forbidden the network (HF_HUB_OFFLINE)."""
    return bool(constants.HF_HUB_OFFLINE)


def repository_folder(name: str, cache: Path) -> Path:
    """Give the folder of a repository in the cache, be it there or not."""
    return cache / f"models--{name.replace('/', '--')}"


def snapshot(repository: Path) -> Path:
    """Give the folder of a repository's files in the Hub's cache, as its client lays it out.

    https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    Raises FileNotFoundError, ValueError for what the client would not have written.
    """
    commit = (repository / "refs/main").read_text().strip()
    if Path(commit).name != commit:
        raise ValueError(f"{commit[:100]!r} is no commit")
    return repository / "snapshots" / commit


def fetch_snapshot(
    name: str,
    cache: Path | None = None,
    *,
    patterns: Sequence[str] | None = None,
    progress: bool = False,
) -> Path:
    """Download a repository into the cache, and give its folder; what is there is kept.

    `progress` shows bars on stderr. Raises what the Hub's client raises.
    """
    if not progress:
        from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415 -- slow to import

        disable_progress_bars()
    folder = huggingface_hub.snapshot_download(
        name, cache_dir=cache, allow_patterns=list(patterns) if patterns else None
    )
    return Path(folder)


def refusal(error: Exception, name: str, *, with_token: bool) -> str:
    """Give what an operator must do about an error of the Hub's client."""
    from huggingface_hub import errors  # noqa: PLC0415 -- slow to import

    page = f"https://huggingface.co/{name}"
    status = _status_of(error)
    if isinstance(error, errors.GatedRepoError) or status in (_UNAUTHORIZED, _FORBIDDEN):
        if not with_token:
            return (
                f"{name} needs a token: accept its conditions at {page}, make a token at"
                f" {TOKENS_PAGE} and set HF_TOKEN"
            )
        if status == _UNAUTHORIZED:
            return f"the Hub refuses the token: make a new one at {TOKENS_PAGE} and set HF_TOKEN"
        if not isinstance(error, errors.GatedRepoError):
            return (
                f"the token may not read {name}: allow it to read gated repositories at"
                f" {TOKENS_PAGE}"
            )
        return (
            f"the conditions of {name} are not accepted by the token's account: accept them"
            f" at {page}"
        )
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return f"{name} is not here, and the Hub cannot be reached"
    return f"{name} cannot be downloaded: {' '.join(str(error).split())[:500]}"


def _status_of(error: BaseException | None) -> int | None:
    """Give the status of the Hub's answer; the client may hide it behind an error of its own."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return int(status)
        error = error.__cause__
    return None
