"""Structured logs for a function: Powertools' logger, also for what the package itself logs. And metrics, as logs."""

from collections.abc import Mapping
from functools import cache

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit


@cache
def function_logger() -> Logger:
    """The function's logger (service name and level from POWERTOOLS_*), shared by every module under `edda`."""
    logger = Logger()
    copy_config_to_registered_loggers(source_logger=logger, include={"edda"})
    return logger


def emit_metrics(counts: Mapping[str, int]) -> None:
    """One line on standard output, of which CloudWatch makes metrics: no call, no permission. Nothing without a
    namespace (POWERTOOLS_METRICS_NAMESPACE), as on a developer's machine."""
    metrics = EphemeralMetrics()
    if not counts or not metrics.namespace:
        return
    for name, count in counts.items():
        metrics.add_metric(name, MetricUnit.Count, count)
    metrics.flush_metrics()
