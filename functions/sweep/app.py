"""Every minute: find what was lost or is stuck, and drive it to an end."""

from typing import Any

from edda import services
from edda.errors import EddaError
from edda.observability import emit_metrics, function_logger
from edda.runtime import LambdaContext, deadline, run

logger = function_logger()


class SweepIncomplete(EddaError):
    """The others were swept; for an alarm the invocation has to fail."""

    code = "sweep_incomplete"
    default_message = "Some tenants could not be swept; the log says why."


def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    """What was done, by kind."""
    done = run(sweep(context))
    logger.info("swept", extra={"done": done})
    emit_metrics(done)
    if done.get("tenants_failed"):
        raise SweepIncomplete
    return done


async def sweep(context: LambdaContext) -> dict[str, int]:
    sweeping = await services.sweeping()
    return await sweeping.sweep(deadline(context))
