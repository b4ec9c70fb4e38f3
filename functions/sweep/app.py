"""Every minute: find what was lost or is stuck, and drive it to an end."""

from typing import Any

from edda import services
from edda.observability import function_logger
from edda.runtime import LambdaContext, deadline, run

logger = function_logger()


def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    """What was done, by kind."""
    done = run(sweep(context))
    logger.info("swept", extra={"done": done})
    return done


async def sweep(context: LambdaContext) -> dict[str, int]:
    sweeping = await services.sweeping()
    return await sweeping.sweep(deadline(context))
