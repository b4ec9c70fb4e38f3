"""`make clean`: forget all that local runs have built and stored."""

import argparse
import shutil
import sys

from local import postgres
from local.settings import LocalSettings, add_arguments, from_arguments
from local.stack import alone, run, stop_leftovers


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="make clean", description="Forget the local stack: data, build and logs.")
    add_arguments(parser)
    settings = from_arguments(parser.parse_args())
    return run(lambda: clean(settings))


def clean(settings: LocalSettings) -> int:
    """Stop what a killed run left, then remove its files. Raises LocalError if a stack is running."""
    if settings.state.exists():
        with alone(settings):
            stop_leftovers(settings)
            shutil.rmtree(postgres.data_home(settings), ignore_errors=True)
            shutil.rmtree(settings.state, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
