"""Finds the models that clients ask for, and downloads those that the operator allows."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request

from services.transcription.catalogue import Catalogue, ServedModel
from services.transcription.downloads import FETCH_SECONDS_MAX, last_line
from services.transcription.errors import Conflict, FetchFailed, ModelNotFound, NotReady
from services.transcription.uploads import until_any, until_gone
from services.transcription.worker import Cancelled


async def find(request: Request, name: str) -> ServedModel:
    """Give the model of that name; raises as `Catalogue.find`."""
    catalogue: Catalogue = request.app.state.catalogue
    # In a thread: it reads folders, on a disk that may sleep.
    return await asyncio.to_thread(catalogue.find, name)


async def find_or_fetch(request: Request, name: str) -> ServedModel:
    """Give the model of that name, downloaded where the service does so unasked.

    The caller holds a place. Who asks for it while another downloads it waits for that.
    """
    try:
        return await find(request, name)
    except ModelNotFound:
        catalogue: Catalogue = request.app.state.catalogue
        if not (catalogue.fetches_unasked and catalogue.may_fetch(name)):
            raise
    async with _turn_to_fetch(request):
        return await _fetch_unless_here(request, name)


async def fetch(request: Request, name: str) -> tuple[ServedModel, bool]:
    """Give the model of that name and whether it was downloaded; raises Conflict if one is.

    The caller holds a place.
    """
    try:
        return await find(request, name), False
    except ModelNotFound:
        catalogue: Catalogue = request.app.state.catalogue
        if not catalogue.may_fetch(name):
            raise
    fetching: asyncio.Lock = request.app.state.fetching
    if fetching.locked():
        raise Conflict("another model is being downloaded, try again later", code="fetching")
    async with _turn_to_fetch(request):
        return await _fetch_unless_here(request, name), True


@asynccontextmanager
async def _turn_to_fetch(request: Request) -> AsyncIterator[None]:
    """Wait for the one turn there is; raises Cancelled when the client leaves before it."""
    fetching: asyncio.Lock = request.app.state.fetching
    turn = asyncio.ensure_future(fetching.acquire())
    gone = asyncio.ensure_future(until_gone(request))
    try:
        await asyncio.wait({turn, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not turn.done():
            raise Cancelled
        yield
    finally:
        gone.cancel()
        if not turn.cancel():
            fetching.release()


async def _fetch_unless_here(request: Request, name: str) -> ServedModel:
    try:
        return await find(request, name)
    except ModelNotFound:
        pass
    catalogue: Catalogue = request.app.state.catalogue
    stopping: asyncio.Event = request.app.state.stopping
    unwanted = until_any(until_gone(request), stopping.wait())
    wanted = await _run_while_wanted(catalogue.fetch_command(name), unwanted=unwanted)
    if wanted:
        return await find(request, name)
    if stopping.is_set():
        raise NotReady("the service stops", code="stopping", retry_after_seconds=5)
    raise Cancelled


async def _run_while_wanted(command: Sequence[str], *, unwanted: Coroutine[Any, Any, None]) -> bool:
    """Download in a process of its own, which can be ended and takes its memory along.

    Gives False, once the process has ended, if `unwanted` returned before it had.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    told = asyncio.ensure_future(process.communicate())
    watch = asyncio.ensure_future(unwanted)
    try:
        async with asyncio.timeout(FETCH_SECONDS_MAX):
            await asyncio.wait({told, watch}, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        raise FetchFailed(
            f"the download took longer than {FETCH_SECONDS_MAX} s", code="fetch_failed"
        ) from None
    finally:
        watch.cancel()
        if process.returncode is None:
            process.kill()
        _, complaint = await told
    if watch.done() and not watch.cancelled():
        return False
    if process.returncode:
        raise FetchFailed(last_line(complaint), code="fetch_failed")
    return True
