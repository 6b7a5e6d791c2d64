"""`GET /metrics`: what the rooms count, in Prometheus' text form.

A room knows nothing of Prometheus. It is read when somebody asks, by a source: a function that returns
Readings. A source that fails costs its own readings and is counted, never the page.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

log = logging.getLogger("tandem.api")

_NAME = re.compile(r"tandem_[a-z0-9_]+")


@dataclass(frozen=True)
class Reading:
    """One value now.

    name:   `tandem_...`, base units (seconds, bytes); a counter's without `_total`
    kind:   "counter" only ever grows while the process lives
    labels: bounded sets only: trunk, result, reason; never a number, a Call-ID or an address
    """

    name: str
    value: float
    help: str = ""
    kind: Literal["counter", "gauge"] = "gauge"
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} does not begin with tandem_ or is not lower case")


Source = Callable[[], Iterable[Reading]]


class Histogram:
    """Counts of observed values by upper bound; `bounds` ascending, without infinity."""

    def __init__(self, name: str, help_text: str, bounds: Iterable[float]) -> None:
        self.name, self.help = name, help_text
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        index = next((i for i, bound in enumerate(self._bounds) if value <= bound), len(self._bounds))
        self._counts[index] += 1
        self._sum += value

    def family(self) -> HistogramMetricFamily:
        total, buckets = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        family = HistogramMetricFamily(self.name, self.help)
        family.add_metric([], buckets=buckets, sum_value=self._sum)
        return family


class Metrics(Collector):
    """All sources and histograms of one gateway, with a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._sources: dict[str, Source] = {}
        self._histograms: list[Histogram] = []
        self._failures: dict[str, int] = {}
        self._registry.register(self)

    def add(self, name: str, source: Source) -> None:
        """`name` labels the source's failures; a second one of that name replaces the first."""
        self._sources[name] = source

    def add_histogram(self, histogram: Histogram) -> None:
        self._histograms.append(histogram)

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for name, source in self._sources.items():
            try:
                readings = list(source())
            except Exception:
                if name not in self._failures:
                    log.exception("event=metrics_source_failed source=%s", name)
                self._failures[name] = self._failures.get(name, 0) + 1
                continue
            for reading in readings:
                _put(families, reading)
        for name, count in self._failures.items():
            _put(
                families,
                Reading(
                    "tandem_metrics_source_failures",
                    count,
                    "Times that a part could not be read for this page.",
                    "counter",
                    {"source": name},
                ),
            )
        yield from families.values()
        for histogram in self._histograms:
            yield histogram.family()

    def page(self) -> bytes:
        return generate_latest(self._registry)

    async def handler(self, _: web.Request) -> web.Response:
        return web.Response(body=self.page(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _put(families: dict[str, Metric], reading: Reading) -> None:
    family = families.get(reading.name)
    if family is None:
        make = CounterMetricFamily if reading.kind == "counter" else GaugeMetricFamily
        family = families[reading.name] = make(reading.name, reading.help)
    suffix = "_total" if reading.kind == "counter" else ""
    family.add_sample(reading.name + suffix, dict(reading.labels), reading.value)
