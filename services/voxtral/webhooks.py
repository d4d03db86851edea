"""Posts the results of jobs where their clients want them; what is to be posted is on disk."""

import asyncio
import logging
import time
from collections.abc import Callable

import aiohttp

from services.voxtral.addresses import check_url, make_session
from services.voxtral.database import StoreFailed
from services.voxtral.jobs import Job, Webhook
from services.voxtral.settings import Settings
from services.voxtral.store import Store

log = logging.getLogger(__name__)

# RunPod's: twice more, ten seconds later each.
ATTEMPTS_MAX = 3
AGAIN_SECONDS = 10.0
_ANSWER_SECONDS = 10.0
_AT_ONCE = 8
_OK = 200
_LOOK_SECONDS = 1.0


class Webhooks:
    """Posts what is due; `render` gives the body."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        render: Callable[[Job], dict[str, object]],
        *,
        again_seconds: float = AGAIN_SECONDS,
    ) -> None:
        self._store = store
        self._again_seconds = again_seconds
        self._allow_private = settings.allow_private_urls
        self._render = render
        self._due = asyncio.Event()

    def check(self, url: str) -> None:
        """Refuse an address that can never be posted to: raises InvalidRequest."""
        check_url(url, field="webhook")

    def wake(self) -> None:
        """Look soon: a result may be due."""
        self._due.set()

    async def run(self) -> None:
        """Post for ever; a host that is slow does not keep the results of others."""
        posting: dict[str, asyncio.Task[None]] = {}
        async with (
            make_session(allow_private=self._allow_private) as session,
            asyncio.TaskGroup() as tasks,
        ):
            while True:
                self._due.clear()
                posting = {job: task for job, task in posting.items() if not task.done()}
                for webhook in await self._look():
                    if webhook.job.id not in posting and len(posting) < _AT_ONCE:
                        posting[webhook.job.id] = tasks.create_task(self._post(session, webhook))
                await self._wait()

    async def _look(self) -> list[Webhook]:
        """Give what is due, what is being posted included."""
        try:
            return await asyncio.to_thread(self._store.due_webhooks, time.time(), 2 * _AT_ONCE)
        except StoreFailed:
            return []  # it was logged

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(min(_LOOK_SECONDS, self._again_seconds)):
                await self._due.wait()
        except TimeoutError:
            pass

    async def _post(self, session: aiohttp.ClientSession, webhook: Webhook) -> None:
        failure = await self._failure(session, webhook)
        attempts = webhook.attempts + 1
        due_at = None
        if failure is not None:
            again = attempts < ATTEMPTS_MAX
            due_at = time.time() + self._again_seconds if again else None
            # Its address is nobody's business: it may hold a secret.
            log.warning("webhook of job %s attempt=%d: %s", webhook.job.id, attempts, failure)
        try:
            await asyncio.to_thread(self._store.webhook_posted, webhook.job, due_at=due_at)
        except StoreFailed:
            # Not at once: what was posted, and cannot be noted, is posted again.
            await asyncio.sleep(self._again_seconds)
        self.wake()

    async def _failure(self, session: aiohttp.ClientSession, webhook: Webhook) -> str | None:
        """Post once; None if it was taken."""
        try:
            async with session.post(
                webhook.url,
                json=self._render(webhook.job),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS),
            ) as answer:
                return None if answer.status == _OK else f"status {answer.status}"
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return type(error).__name__
        except Exception as error:
            # A bug, which must not keep the others from being posted.
            log.exception("a webhook could not be posted")
            return type(error).__name__
