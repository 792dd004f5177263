"""Runs the app under uvicorn: binds first, then opens the data, and shuts down without losing a run or a reader.

Or runs it without HTTP, as a worker.
"""

import asyncio
import contextlib
import signal
import socket
import types
from collections.abc import Callable

import uvicorn

from agentflow_server.app import Server, create_server
from agentflow_server.kit import logs, telemetry
from agentflow_server.kit.settings import Settings, SettingsError


def listen(host: str, port: int) -> socket.socket:
    """A bound, listening socket.

    Raises:
        SettingsError: the address is not ours or is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port (0 takes any free one)"
        ) from None
    listener.listen(2048)
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """The address of a listening socket as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class UvicornServer(uvicorn.Server):
    """Tells open streams to end as soon as the process is asked to stop: they resume elsewhere."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self._agentflow = server
        self.on_started: Callable[[], None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.on_started is not None:
            self.on_started()

    def handle_exit(self, sig: int, frame: types.FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._agentflow.begin_shutdown()


def uvicorn_server(server: Server, settings: Settings) -> UvicornServer:
    """The web server for an app."""
    config = uvicorn.Config(
        server.app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, int(settings.shutdown_seconds)),
        timeout_keep_alive=75,
        lifespan="on",
    )
    return UvicornServer(config, server)


def run(settings: Settings, listener: socket.socket, announce: Callable[[str], None]) -> None:
    """Serve until the process is told to stop.

    Raises:
        SettingsError: as `create_server`.
    """
    logs.configure(settings.log_level)
    _trace()
    try:
        server = create_server(settings)
    except SettingsError:
        listener.close()
        raise
    web = uvicorn_server(server, settings)
    announce(url_of(listener))
    with contextlib.suppress(KeyboardInterrupt):
        web.run(sockets=[listener])


def work(settings: Settings, announce: Callable[[], None]) -> None:
    """Run jobs, without serving HTTP, until the process is told to stop.

    Raises:
        SettingsError: as `create_server`.
    """
    logs.configure(settings.log_level)
    _trace()
    server = create_server(settings.model_copy(update={"run_jobs": True}))
    asyncio.run(_work(server, announce))


def _trace() -> None:
    try:
        telemetry.configure()
    except ImportError:
        raise SettingsError(
            "OTEL_EXPORTER_OTLP_ENDPOINT: sending traces needs: pip install 'agentflow-server[telemetry]'"
        ) from None


async def _work(server: Server, announce: Callable[[], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, stop.set)
    async with server.fastapi.router.lifespan_context(server.fastapi):
        announce()
        await stop.wait()
