"""`make clean`: forget all that local runs have built and stored."""

import argparse
import contextlib
import dataclasses
import shutil
import sys

from local import engine, postgres
from local.errors import LocalError
from local.settings import LocalSettings, add_arguments, from_arguments
from local.stack import alone, run, stop_leftovers


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="make clean", description="Forget the local stack: data, build and logs.")
    add_arguments(parser)
    settings = from_arguments(parser.parse_args())
    return run(lambda: clean(settings))


def clean(settings: LocalSettings) -> int:
    """Stop what a killed run left, then remove its files and images. Raises LocalError if a stack is running."""
    for state in (settings.state / "sam-local", settings.state):  # the first is make sam-local's
        if state.exists():
            one = dataclasses.replace(settings, state=state)
            with alone(one):
                stop_leftovers(one)
                shutil.rmtree(postgres.data_home(one), ignore_errors=True)
                shutil.rmtree(state, ignore_errors=True)
    with contextlib.suppress(LocalError), engine.trouble():  # no engine, no containers
        client = engine.connect()
        engine.remove_containers(client, dataclasses.replace(settings, state=settings.state / "sam-local"))
        engine.remove_images(client)
    return 0


if __name__ == "__main__":
    sys.exit(main())
