"""Builds the executor's objects from its configuration.  No other module imports every package."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import socket
from collections.abc import Callable
from functools import partial
from importlib import metadata

from executor_svc.config import ConfigError, ExecutorConfig
from executor_svc.engine.factory import engine_factory
from executor_svc.engine.settings import EngineSettings
from executor_svc.runtime.attempts.attempt_table import AttemptTable
from executor_svc.runtime.device_place import DevicePlace, LockedPlace
from executor_svc.runtime.drain import Drain
from executor_svc.runtime.engine_port import EngineFactory
from executor_svc.runtime.messages.registration import DeviceGroup, Identity, Role
from executor_svc.runtime.outputs.outbox import Outbox
from executor_svc.runtime.service import ExecutorService
from executor_svc.runtime.session.load_meter import LoadMeter
from executor_svc.runtime.session.loop_lag import LoopLag
from executor_svc.runtime.session.session import Session
from executor_svc.runtime.session.timings import SessionTimings
from executor_svc.telemetry.engine_reader import EngineReader
from executor_svc.telemetry.service import ExecutorTelemetry
from executor_svc.transport.grpc_link import GrpcDialer
from executor_svc.transport.health_server import CannotListen, HealthServer
from executor_svc.transport.tls import DialCredentials, UnusableToken
from sage_common.addresses import host_of
from sage_common.file_watch import Reloader
from sage_common.tasks import WatchedTasks
from sage_common.tls import ReloadedTls, UnreadableFile, UnusableFiles
from sage_telemetry.prometheus import CannotServe
from sage_wire.listener_credentials import listener_credentials

log = logging.getLogger(__name__)

EVERYWHERE = ("0.0.0.0", "::")


async def run(
    config: ExecutorConfig,
    *,
    factory: EngineFactory | None = None,
    timings: SessionTimings | None = None,
    on_service: Callable[[ExecutorService], None] | None = None,
) -> int:
    """Run the executor and return its exit status.

    ``on_service`` is called with the service once it is built; without it, SIGTERM and SIGINT stop the service, and
    SIGHUP has the certificate of the listener read again.

    Raises:
        ConfigError: an address cannot be listened on, or a file or folder cannot be used.
    """
    dialer, health, reloader = _transport(config)
    place = _device_place(config)
    try:
        port = await health.start()
    except CannotListen as error:
        raise ConfigError(f"listen: {error}") from error
    address = _advertised(config, port)
    log.info("health checks on %s", address)
    tasks = WatchedTasks()
    tasks.start(reloader.run(), name="file-reloads")
    telemetry = _telemetry(config)
    try:
        service = build_service(
            config,
            dialer=dialer,
            health=health,
            tasks=tasks,
            factory=factory or engine_factory(_engine_settings(config), embeds=config.role == "embedding"),
            address=address,
            timings=timings or SessionTimings(),
            telemetry=telemetry,
            place=place,
        )
        (on_service or partial(_handle_signals, reloader))(service)
        return await service.run()
    finally:
        if place is not None:
            place.give_back()
        await telemetry.close()
        await health.stop()


def build_service(
    config: ExecutorConfig,
    *,
    dialer: GrpcDialer,
    health: HealthServer,
    tasks: WatchedTasks,
    factory: EngineFactory,
    address: str,
    timings: SessionTimings,
    telemetry: ExecutorTelemetry,
    place: DevicePlace | None = None,
) -> ExecutorService:
    """Connect the executor's objects, and serve its metrics.

    Raises:
        ConfigError: the metrics address cannot be served.
    """
    observer = telemetry.observer
    lag = LoopLag(observer)
    meter = LoadMeter(lag, observer)
    outbox = Outbox()
    attempts = AttemptTable(
        outbox,
        max_held=config.max_held_attempts,
        generates=config.role != "embedding",
        observer=observer,
    )
    session = Session(
        identity=_identity(config, address),
        addresses=config.scheduler,
        dialer=dialer,
        attempts=attempts,
        outbox=outbox,
        meter=meter,
        timings=timings,
        observer=observer,
    )
    try:
        telemetry.start(EngineReader(session, attempts, outbox, meter))
    except CannotServe as error:
        raise ConfigError(f"telemetry.metrics_listen: {error}") from error
    return ExecutorService(
        factory=factory,
        session=session,
        attempts=attempts,
        outbox=outbox,
        meter=meter,
        lag=lag,
        drain=Drain(
            attempts=attempts,
            session=session,
            timeout_s=config.drain_timeout_s,
            kv_used_tokens=meter.kv_used_tokens,
        ),
        health=health,
        tasks=tasks,
        place=place,
        stuck_limit_s=config.device_group.stuck_limit_s if place is not None else None,
        observer=observer,
    )


def _device_place(config: ExecutorConfig) -> DevicePlace | None:
    """Return the engine's place on the device that it shares; None if it shares none.  Raises ConfigError."""
    group = config.device_group
    if not group.name:
        return None
    try:
        return LockedPlace(group.directory, group.name, places=group.places, holder=config.name)
    except OSError as error:
        raise ConfigError(f"device_group.directory: {error}") from error


def _transport(config: ExecutorConfig) -> tuple[GrpcDialer, HealthServer, Reloader]:
    """Return what dials, what listens, and what reads the listener's certificate again.  Raises ConfigError."""
    tls, server_tls = config.tls, config.tls.server()
    dial = DialCredentials(
        ca=tls.ca, certificate=tls.certificate, private_key=tls.private_key, token_file=config.token_file
    )
    try:
        dial.channel()
        reloaded = ReloadedTls(server_tls) if server_tls is not None else None
    except (UnreadableFile, UnusableFiles) as error:
        raise ConfigError(f"tls: {error}") from error
    try:
        dial.metadata()
    except (UnreadableFile, UnusableToken) as error:
        raise ConfigError(f"token_file: {error}") from error
    listen = listener_credentials(lambda: reloaded.current) if reloaded is not None else None
    reloader = Reloader([reloaded.check] if reloaded is not None else [])
    return GrpcDialer(dial), HealthServer(config.listen, listen), reloader


def _telemetry(config: ExecutorConfig) -> ExecutorTelemetry:
    return ExecutorTelemetry(
        config.telemetry,
        instance_id=config.name,
        model=config.engine.model.name,
        engine=config.engine.kind,
        tls=config.tls.server(),
    )


def _engine_settings(config: ExecutorConfig) -> EngineSettings:
    """Return the engine's settings.  vLLM's spans go to the executor's OTLP endpoint unless another is set."""
    engine, endpoint = config.engine, config.telemetry.otlp_endpoint
    if endpoint is None or engine.vllm.traces_endpoint is not None:
        return engine
    return engine.model_copy(update={"vllm": engine.vllm.model_copy(update={"traces_endpoint": endpoint})})


def _identity(config: ExecutorConfig, address: str) -> Identity:
    group = config.device_group
    return Identity(
        instance_id=config.name,
        engine_start_id=secrets.token_hex(8),
        role=Role(config.role),
        model=config.engine.model.name,
        host=config.location.host or socket.gethostname(),
        rack=config.location.rack,
        zone=config.location.zone,
        labels=config.labels,
        price_per_hour=config.price_per_hour,
        software_version=_version(),
        address=address,
        device_group=DeviceGroup(name=group.name, places=group.places) if group.name else None,
    )


def _version() -> str:
    try:
        return metadata.version("sage-control-plane")
    except metadata.PackageNotFoundError:
        return "unknown"


def _advertised(config: ExecutorConfig, port: int) -> str:
    host = host_of(config.listen)
    if host in EVERYWHERE:
        host = config.location.host or socket.gethostname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _handle_signals(reloader: Reloader, service: ExecutorService) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reloader.ask)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.stop, number)
