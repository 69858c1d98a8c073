"""Puts metrics into CloudWatch at an interval, from a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sage_telemetry.cloudwatch_data import CloudWatchData, Datum
from sage_telemetry.cloudwatch_settings import CloudWatchSettings
from sage_telemetry.meter import Meter
from sage_telemetry.resource import Identity

log = logging.getLogger(__name__)

BATCH = 500
"""Data of one call; CloudWatch takes 1,000 in at most 1 MB."""
DATA_LIMIT = 5_000
"""Data of one export; further ones are left out, and the log says so."""
TIMEOUT_S = 5.0
"""How long one call may take to connect, and to answer."""
TRIES = 3
CLOSE_S = 1.0
"""How long ``close`` waits for the last export."""


class CloudWatchPush:
    """The thread that reads a meter and puts what it read.  What a failed call lacked goes with the next export."""

    def __init__(self, meter: Meter, settings: CloudWatchSettings, identity: Identity, client: Any = None) -> None:
        """``client``: of boto3's service ``cloudwatch``; None: made at the start."""
        fixed = {"service": identity.service}
        if "instance" in settings.dimensions and identity.instance_id:
            fixed["instance"] = identity.instance_id
        self._meter = meter
        self._settings = settings
        self._data = CloudWatchData(fixed, settings.dimensions, settings.metrics)
        self._client = client
        self._closing = threading.Event()
        self._failing = False  # the latest export was not delivered whole
        self._thread = threading.Thread(target=self._run, name="cloudwatch-push", daemon=True)

    def start(self) -> None:
        """Start the thread; its first export comes after one interval."""
        self._thread.start()

    def close(self) -> None:
        """End the thread after a last export.  Blocks for at most CLOSE_S.  Idempotent."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while not self._closing.wait(self._settings.interval_s):
            self._export()
        self._export()

    def _export(self) -> None:
        try:
            self._put(self._data.of(self._meter.read(), datetime.now(UTC)))
        except Exception as error:  # of boto3, of the network, or a defect: the next export is made all the same
            if not self._failing:
                log.warning("metrics do not reach CloudWatch: %s", error)
            self._failing = True
            return
        if self._failing:
            log.info("metrics reach CloudWatch again")
        self._failing = False

    def _put(self, data: Sequence[Datum]) -> None:
        """Put all data; stop at the first call that fails.  Raises what boto3 raises."""
        if self._client is None:
            self._client = _client(self._settings)
        if len(data) > DATA_LIMIT:
            log.warning("%d of %d metrics are not exported to CloudWatch", len(data) - DATA_LIMIT, len(data))
        for first in range(0, min(len(data), DATA_LIMIT), BATCH):
            some = data[first : min(first + BATCH, DATA_LIMIT)]
            bodies = [each.body for each in some]
            self._client.put_metric_data(Namespace=self._settings.namespace, MetricData=bodies)
            self._data.delivered(some)


def _client(settings: CloudWatchSettings) -> Any:
    # boto3 is an extra, and takes a third of a second to import.
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=TIMEOUT_S,
        read_timeout=TIMEOUT_S,
        retries={"mode": "standard", "max_attempts": TRIES},
        max_pool_connections=1,
    )
    return boto3.client("cloudwatch", region_name=settings.region, endpoint_url=settings.endpoint_url, config=config)
