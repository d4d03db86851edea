"""What the waiting page says, in English and in French, by situation.

A situation is one word for where a person's wait stands: a phase of the start (queued, preparing,
starting, loading), a state (ready, stopping, stopped), or why it does not go on (failed, held,
restarting). page.js tells it from a status in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from autostart.waiting.language import Language

_OF_CODE = {"held": "held", "shutting-down": "restarting"}
_MINUTE_SECONDS = 60


@dataclass(frozen=True)
class Words:
    """One language. `{}` stands for a time."""

    headings: Mapping[str, str]
    texts: Mapping[str, str]
    steps: Mapping[str, str]
    usual: str
    retry: str
    opens: str
    reloads: str
    progress: str


WORDS: dict[Language, Words] = {
    "en": Words(
        headings={
            "queued": "Waiting for its turn",
            "preparing": "Being prepared",
            "starting": "Starting",
            "loading": "Loading",
            "ready": "Ready",
            "stopping": "Stopping first",
            "stopped": "Stopped",
            "failed": "It did not start",
            "held": "Stopped",
            "restarting": "One moment",
        },
        texts={
            "queued": "Another service is using the machine. This one starts once it is free.",
            "preparing": "It is being installed or updated. This can take several minutes.",
            "starting": "It was asleep and is waking up.",
            "loading": "It is up and getting ready to answer.",
            "ready": "Opening…",
            "stopping": "It is being stopped, and starts again right after.",
            "stopped": "It is not running. It is started again in a moment.",
            "failed": "It is tried again by itself.",
            "held": "The people who run it have stopped it.",
            "restarting": "The server itself is restarting.",
        },
        steps={
            "queued": "In line",
            "preparing": "Preparing",
            "starting": "Starting",
            "loading": "Loading",
            "ready": "Ready",
        },
        usual="usually {}",
        retry="Next try in {}",
        opens="This page opens it as soon as it is ready.",
        reloads="This page loads itself again every {}.",
        progress="Start",
    ),
    "fr": Words(
        headings={
            "queued": "En file d’attente",
            "preparing": "Préparation",
            "starting": "Démarrage",
            "loading": "Chargement",
            "ready": "Prêt",
            "stopping": "Arrêt en cours",
            "stopped": "Arrêté",
            "failed": "Le démarrage a échoué",
            "held": "Arrêté",
            "restarting": "Un instant",
        },
        texts={
            "queued": "Un autre service occupe la machine. Celui-ci démarre dès qu’elle est libre.",
            "preparing": "Le service est en cours d’installation ou de mise à jour. Cela peut "
            "prendre plusieurs minutes.",
            "starting": "Le service était en veille et se réveille.",
            "loading": "Le service tourne et se prépare à répondre.",
            "ready": "Ouverture…",
            "stopping": "Le service s’arrête, puis redémarre aussitôt.",
            "stopped": "Le service ne tourne pas. Il est relancé dans un instant.",
            "failed": "Un nouvel essai a lieu tout seul.",
            "held": "Les responsables du service l’ont arrêté.",
            "restarting": "Le serveur lui-même redémarre.",
        },
        steps={
            "queued": "En file",
            "preparing": "Préparation",
            "starting": "Démarrage",
            "loading": "Chargement",
            "ready": "Prêt",
        },
        usual="d’habitude {}",
        retry="Prochain essai dans {}",
        opens="Cette page ouvre le service dès qu’il est prêt.",
        reloads="Cette page se recharge toutes les {}.",
        progress="Démarrage",
    ),
}


def situation(state: str, phase: str | None, failure_code: str | None) -> str:
    """Return the word for a status."""
    if failure_code is not None:
        return _OF_CODE.get(failure_code, "failed")
    return phase if state == "starting" and phase is not None else state


def duration(seconds: float) -> str:
    """Return a time as people read it, with spaces that do not break: 8 s, 2 min 5 s."""
    whole = max(0, math.floor(seconds + 0.5))
    if whole < _MINUTE_SECONDS:
        return f"{whole}\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(whole, _MINUTE_SECONDS)
    return f"{minutes}\N{NO-BREAK SPACE}min\N{NO-BREAK SPACE}{rest}\N{NO-BREAK SPACE}s"
