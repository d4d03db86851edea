"""The engine's API: the SDK's blocking calls, each in a thread of ours and with a deadline.

The border to the SDK: nothing above sees its types or its exceptions. An engine that hangs keeps
threads of these pools and no others; one that refuses says why in EngineRefused.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from autostart.errors import AutostartError, EngineUnreachable
from autostart.runtimes.base import Usage
from autostart.runtimes.docker.container import PROJECT, Container, is_ours, parse

if TYPE_CHECKING:
    from docker import APIClient
    from docker.errors import APIError

T = TypeVar("T")

# Looks take 1 ms, of a busy engine 100: one that takes this long hangs. A client gets an answer
# within 5 s of asking for a stopped service.
LOOK_SECONDS = 3.0
# Starts take 0.3 s; a GPU's first use takes seconds, a disk that sleeps more. The caller has its
# own deadline: this one only frees the thread.
CHANGE_SECONDS = 300.0
CLOSED = "autostart lets go of the engine"
# What a stop may take beyond the time that the container was given.
STOP_GRACE_SECONDS = 10.0
# Threads are made on demand. A look is over in milliseconds; a stop takes as long as its service.
LOOKS_AT_ONCE = 4
CHANGES_AT_ONCE = 64
# The events that may change what is true of a run.
EVENTS = (
    "create",
    "start",
    "restart",
    "die",
    "oom",
    "pause",
    "unpause",
    "destroy",
    "rename",
)
# The first of `events`: from now on nothing is missed.
CONNECTED = "connected"
# What a stream reads ahead of who listens; then it waits.
AHEAD_MAX = 1_000


class EngineRefused(AutostartError):
    """The engine answered no; the message is its own, in one line."""

    code = "engine-refused"
    hint = "autostart doctor"


class ContainerGone(EngineRefused):
    """There is no such container any more."""

    code = "container-gone"
    hint = "autostart start HOST creates it again"


class Engine:
    """One engine, found as the `docker` command finds it; connects when first asked."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._lookers = ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="docker-look")
        self._changers = ThreadPoolExecutor(CHANGES_AT_ONCE, thread_name_prefix="docker-change")
        self._clients: tuple[APIClient, APIClient] | None = None
        self._connecting = threading.Lock()
        self._closed = False

    @property
    def address(self) -> str | None:
        """Where it is, None for the SDK's default."""
        return self._environment.get("DOCKER_HOST") or None

    # Looking.

    async def ping(self) -> None:
        """Return when it answers. Raises EngineUnreachable, as all of these."""
        await self._look(lambda client: client.ping())

    async def info(self) -> dict[str, Any]:
        """Return the engine's account of itself."""
        return await self._look(lambda client: client.info())

    async def containers(self, project: str | None = None) -> list[Container]:
        """Return the containers of this compose project, or of all projects."""
        label = PROJECT if project is None else f"{PROJECT}={project}"
        listed = await self._look(
            lambda client: client.containers(all=True, filters={"label": label})
        )
        ids = [each["Id"] for each in listed if is_ours(each.get("Labels") or {})]
        looked_at = await asyncio.gather(*(self._inspect_or_none(each) for each in ids))
        return [container for container in looked_at if container is not None]

    async def inspect(self, container_id: str) -> Container:
        """Return one container. Raises ContainerGone."""
        return parse(await self._look(lambda client: client.inspect_container(container_id)))

    async def publisher(self, port: int) -> str | None:
        """Return the name of the running container that publishes a port of the host."""
        running = await self._look(lambda client: client.containers())
        for each in running:
            if any(bound.get("PublicPort") == port for bound in each.get("Ports") or ()):
                return str(each["Names"][0]).removeprefix("/")
        return None

    async def image_id(self, name: str) -> str | None:
        """Return what the name stands for now, None if it is not here."""
        with contextlib.suppress(ContainerGone):
            document = await self._look(
                lambda client: client.inspect_image(name)  # type: ignore[no-untyped-call]  # in its stubs
            )
            return str(document["Id"])
        return None

    async def usage(self, container_id: str) -> Usage:
        """Return what the container uses now. Raises ContainerGone."""
        # one_shot: without it the engine measures for a second first.
        return _usage(
            await self._look(lambda client: client.stats(container_id, stream=False, one_shot=True))
        )

    # Changing.

    async def start(self, container_id: str) -> None:
        """Start the container; does nothing if it runs. Goes on in its thread if cancelled."""
        await self._change(lambda client: client.start(container_id))

    async def stop(self, container_id: str, seconds: float) -> None:
        """Ask it to stop and kill it after so many seconds; return when it has ended."""
        # The API takes whole seconds, and 0 means at once.
        whole = -int(-seconds // 1)
        await self._change(
            lambda client: client.stop(container_id, timeout=whole),
            seconds=whole + STOP_GRACE_SECONDS,
        )

    async def unpause(self, container_id: str) -> None:
        """Let a paused container go on."""
        await self._change(lambda client: client.unpause(container_id))

    # Streams.

    async def events(self) -> AsyncGenerator[tuple[str, dict[str, str]]]:
        """Yield what happens to containers, each with its labels; CONNECTED comes first.

        Ends in EngineUnreachable.
        """
        await self.ping()  # a hung engine is told from a silent one before the wait begins
        filters = {"type": ["container"], "event": list(EVENTS)}
        async for event in self._stream(
            lambda client: client.events(decode=True, filters=filters), first=(CONNECTED, {})
        ):
            match event:
                case tuple():
                    yield event
                case _:
                    yield event["Action"], event["Actor"].get("Attributes") or {}

    async def log(
        self, container_id: str, lines: int | None, *, follow: bool, since: float = 0.0
    ) -> AsyncGenerator[tuple[str, str]]:
        """Yield (date, line) of the output: the last `lines`, or all; `follow` to the run's end.

        Raises ContainerGone.
        """
        rest = b""
        chunks = self._stream(
            lambda client: client.logs(
                container_id,
                stream=True,
                follow=follow,
                timestamps=True,
                tail="all" if lines is None else lines,
                since=since or None,
            )
        )
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    yield _dated(line)
        if rest:
            yield _dated(rest)

    def close(self) -> None:
        """Let go of the threads; what they wait for goes on without us.

        Whoever asks then, or has not been answered, gets EngineUnreachable.
        """
        self._closed = True
        self._lookers.shutdown(wait=False, cancel_futures=True)
        self._changers.shutdown(wait=False, cancel_futures=True)

    # The threads.

    async def _look(self, ask: Callable[[APIClient], T]) -> T:
        return await self._ask(self._lookers, 0, ask, LOOK_SECONDS)

    async def _change(self, ask: Callable[[APIClient], T], seconds: float = CHANGE_SECONDS) -> T:
        return await self._ask(self._changers, 1, ask, seconds)

    async def _ask(
        self, pool: ThreadPoolExecutor, which: int, ask: Callable[[APIClient], T], seconds: float
    ) -> T:
        def work() -> T:
            with _mapped():
                return ask(self._connect()[which])

        if self._closed:
            raise EngineUnreachable(CLOSED)
        asked = pool.submit(work)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(asked)
        except TimeoutError as error:
            raise EngineUnreachable(f"the engine was silent for {seconds:.0f} s") from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise EngineUnreachable(CLOSED) from None  # it was the question, not who asked
            raise

    def _connect(self) -> tuple[APIClient, APIClient]:
        """Return a client for looks and one for changes; they differ in their patience."""
        with self._connecting:
            if self._clients is None:
                # Here: the SDK costs 20 MB and 0.1 s, and a map of commands needs none of it.
                from docker import APIClient  # noqa: PLC0415 - see above
                from docker.utils import kwargs_from_env  # noqa: PLC0415 - see above

                where = kwargs_from_env(environment=dict(self._environment))
                looker = APIClient(
                    **where, version="auto", timeout=int(LOOK_SECONDS), max_pool_size=LOOKS_AT_ONCE
                )
                changer = APIClient(
                    **where,
                    version=looker.api_version,
                    timeout=int(CHANGE_SECONDS),
                    max_pool_size=CHANGES_AT_ONCE,
                )
                self._clients = looker, changer
            return self._clients

    async def _inspect_or_none(self, container_id: str) -> Container | None:
        try:
            return await self.inspect(container_id)
        except ContainerGone:
            return None  # between the list and the look

    async def _stream(
        self, ask: Callable[[APIClient], Any], *, first: object = None
    ) -> AsyncGenerator[Any]:
        """Yield what a blocking stream of the SDK gives, read by a thread of its own."""
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[object] = asyncio.Queue()
        room = threading.Semaphore(AHEAD_MAX)
        open_streams: list[Any] = []
        ended = threading.Event()

        def tell(item: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(told.put_nowait, item)

        def read() -> None:
            try:
                with _mapped():
                    stream = ask(self._connect()[0])
                    open_streams.append(stream)
                    if first is not None:
                        tell(first)
                    for item in () if ended.is_set() else stream:
                        room.acquire()
                        if ended.is_set():
                            break
                        tell(item)
                tell(None)
            except AutostartError as error:
                tell(error)

        # A daemon: it may wait for a hung engine when autostart ends.
        threading.Thread(target=read, name="docker-stream", daemon=True).start()
        try:
            while (item := await told.get()) is not None:
                room.release()
                if isinstance(item, AutostartError):
                    raise item
                yield item
        finally:
            ended.set()
            room.release()
            for stream in open_streams:
                with contextlib.suppress(Exception):  # whatever it says, we leave
                    stream.close()


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    """Turn the SDK's exceptions, and those of the library beneath it, into ours."""
    from docker.errors import APIError, DockerException, NotFound  # noqa: PLC0415 - see _connect
    from requests.exceptions import RequestException, Timeout  # noqa: PLC0415 - too
    from urllib3.exceptions import HTTPError  # noqa: PLC0415 - too

    try:
        yield
    except NotFound as error:
        raise ContainerGone(_explanation(error)) from error
    except APIError as error:
        raise EngineRefused(_explanation(error)) from error
    except Timeout as error:
        raise EngineUnreachable("the engine was silent") from error
    except (DockerException, RequestException, HTTPError, OSError) as error:
        # Also a stream that breaks off, which the SDK does not wrap.
        raise EngineUnreachable(f"the engine cannot be reached: {_root(error)}") from error


def _explanation(error: APIError) -> str:
    text = str(error.explanation or error)
    return " ".join(text.split())


def _root(error: BaseException) -> str:
    """Return what the operating system said, under what libraries made of it."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return str(error) or type(error).__name__


def _usage(stats: Mapping[str, Any]) -> Usage:
    memory = stats.get("memory_stats") or {}
    details = memory.get("stats") or {}
    # The page cache can be taken back at any time; as `docker stats` counts, cgroup v1 and v2.
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    cpu = (stats.get("cpu_stats") or {}).get("cpu_usage") or {}
    return Usage(
        memory_bytes=max(0, memory.get("usage", 0) - cache),
        cpu_seconds=cpu.get("total_usage", 0) / 1e9,
    )


def _dated(line: bytes) -> tuple[str, str]:
    date, _, text = line.decode(errors="replace").removesuffix("\r").partition(" ")
    return date, text
