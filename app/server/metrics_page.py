"""/metrics for Prometheus, on a port of its own: it says how the service is used."""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from app.metrics import METRICS, Kind, Measure, Metric
from app.server.errors import CannotServe
from app.settings import ENV_PREFIX, Settings

_FAMILIES: Final[dict[Kind, Callable[..., Family]]] = {
    Kind.COUNTER: CounterMetricFamily,
    Kind.GAUGE: GaugeMetricFamily,
    Kind.HISTOGRAM: HistogramMetricFamily,
}


def serve_metrics(settings: Settings, measure: Measure) -> None:
    """Serve what `measure` returns, in a thread, if a port is set. Raises CannotServe."""
    if settings.metrics_port is None:
        return
    registry = CollectorRegistry()
    registry.register(_Measured(measure))
    try:
        start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except OSError as error:
        raise CannotServe(
            f"Cannot serve metrics on {settings.metrics_host} port {settings.metrics_port}: "
            f"{error.strerror}. {ENV_PREFIX}METRICS_HOST and {ENV_PREFIX}METRICS_PORT choose "
            "another."
        ) from None


class _Measured(Collector):
    def __init__(self, measure: Measure) -> None:
        self.measure = measure

    def describe(self) -> Iterator[Family]:
        """Name no metrics beforehand, so that nothing is measured when it is registered."""
        return iter(())

    def collect(self) -> Iterator[Family]:
        families = {name: _family(name, metric) for name, metric in METRICS.items()}
        for (name, labels), values in self.measure().items():
            if name not in METRICS:
                continue  # of a worker of a newer release
            metric, family = METRICS[name], families[name]
            if metric.kind is Kind.HISTOGRAM:
                total, *counts = values
                bounds = [*map(str, metric.bounds), "+Inf"]
                buckets = list(zip(bounds, accumulate(counts), strict=True))
                family.add_metric(labels, buckets, total)  # type: ignore[attr-defined]
            else:
                family.add_metric(labels, values[0])  # type: ignore[attr-defined]
        yield from families.values()


def _family(name: str, metric: Metric) -> Family:
    return _FAMILIES[metric.kind](name, metric.help, labels=metric.labels)
