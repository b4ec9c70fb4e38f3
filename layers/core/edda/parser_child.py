"""The process that touches files: `python -m edda.parser_child`. Requests come on stdin, answers go to stdout.

See `frames` for what they say, and `adapters.parser_process` for the parent. It ends when stdin does.
"""

import os
import sys
import traceback
from pathlib import Path

from edda import frames, sandbox
from edda.errors import DocumentError, TooLargeToProcess
from edda.parts import Limits, read_part

# Nobody's parser: a page of Python frames is enough to find a fault by.
_TRACEBACK_FRAMES = 5


def main() -> None:
    """Serve requests until there are no more. The only argument is the memory that a document may take, in bytes."""
    # What libraries print must not get between the frames.
    answers = os.dup(1)
    os.dup2(2, 1)
    sandbox.enter(int(sys.argv[1]))
    _load()
    frames.write(answers, {"ready": True})
    buffer = bytearray()
    while (request := frames.read(0, buffer)) is not None:
        if not _answer(request, answers):
            return


def _load() -> None:
    """Import now what most documents need, while nobody waits."""
    import kreuzberg  # noqa: F401 - loaded before the first document, so that no document waits or pays for it
    import pypdfium2  # noqa: F401 - likewise


def _answer(request: frames.Frame, answers: int) -> bool:
    """Parse one file, or a part of it, and send what became of it. False when this process had better not go on."""
    sandbox.allow_cpu_seconds(request["cpu_s"])
    out_of_memory = False
    try:
        _parse(request, answers)
    except DocumentError as error:
        frames.write(answers, {"error": error.code, "message": error.message})
    except MemoryError:
        out_of_memory = True  # answered below, when what the frames of the exception hold is free
    except Exception as error:
        traceback.print_exc(limit=-_TRACEBACK_FRAMES)
        detail = traceback.format_exc(limit=-_TRACEBACK_FRAMES)[-2000:]
        frames.write(answers, {"error": "corrupt", "detail": f"{type(error).__name__}: {detail}"})
    if out_of_memory:
        frames.write(answers, {"error": TooLargeToProcess.code, "leaving": True})
    return not out_of_memory


def _parse(request: frames.Frame, answers: int) -> None:
    limits = Limits(**request["limits"])
    part = read_part(Path(request["path"]), request["name"], request["content_type"], request["state"], limits)
    chunks = part.chunks
    for first in range(0, len(chunks), frames.CHUNKS_PER_FRAME):
        packed = [frames.pack_chunk(one) for one in chunks[first : first + frames.CHUNKS_PER_FRAME]]
        frames.write(answers, {"chunks": packed})
    facts = {
        "media_type": part.media_type,
        "title": part.title,
        "language": part.language,
        "characters": part.characters,
        "state": part.state,
    }
    frames.write(answers, {"done": facts})


if __name__ == "__main__":
    main()
