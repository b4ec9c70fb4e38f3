"""Structured logs for a function: Powertools' logger, also for what the package itself logs."""

from functools import cache

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers


@cache
def function_logger() -> Logger:
    """The function's logger (service name and level from POWERTOOLS_*), shared by every module under `edda`."""
    logger = Logger()
    copy_config_to_registered_loggers(source_logger=logger, include={"edda"})
    return logger
