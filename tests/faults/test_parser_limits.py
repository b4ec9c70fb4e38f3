"""Hostile files against the parser process: each costs one document, within time and memory, and says why."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from edda.adapters.parser_process import ParserProcess
from edda.errors import (
    Corrupt,
    DecompressionLimit,
    DocumentError,
    NoText,
    ParseTimeout,
    TooLargeToProcess,
    TooManyChunks,
)
from edda.models import ParseCursor, ParseOutcome
from edda.settings import MEGABYTE, Settings

from tests.fakes import files

pytestmark = pytest.mark.anyio

MEMORY_BYTES = 256 * MEGABYTE
SETTINGS = Settings(parse_timeout_s=20, parse_memory_bytes=MEMORY_BYTES, max_chunks=20_000)
GOOD = b"# Tides\n\nThe moon pulls the sea."

Parse = Callable[..., "asyncio.Future[ParseOutcome]"]


class World:
    """A parser process, and a folder whose files it reads."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.parser = ParserProcess(settings)
        self._folder = folder

    async def parse(self, data: bytes, name: str = "notes.md") -> ParseOutcome:
        path = self._folder / "document"
        path.write_bytes(data)
        return await self.parser.parse(path, name, None)

    async def fails(self, kind: type[DocumentError], data: bytes, name: str) -> None:
        with pytest.raises(kind):
            await self.parse(data, name)

    async def still_works(self) -> None:
        outcome = await self.parse(GOOD)
        assert [chunk.text for chunk in outcome.chunks] == ["# Tides\n\nThe moon pulls the sea."]

    @property
    def child_pid(self) -> int:
        child = self.parser._child
        assert child is not None
        return child._process.pid


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path, SETTINGS)
    yield world
    await world.parser.aclose()


@pytest.fixture
async def hasty_world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path, SETTINGS.model_copy(update={"parse_timeout_s": 0.3}))
    await world.parse(GOOD)  # warm: the start of the child does not count
    yield world
    await world.parser.aclose()


async def test_a_document_comes_back_as_chunks_with_all_their_facts(world: World) -> None:
    outcome = await world.parse("# Gezeiten\n\nDer Mond zieht das Meer zu sich und lässt es wieder los.".encode())
    (chunk,) = outcome.chunks
    assert (outcome.media_type, outcome.title, outcome.language) == ("text/markdown", "Gezeiten", "de")
    assert (chunk.ordinal, chunk.char_start, chunk.char_end) == (0, 0, outcome.characters)
    assert (chunk.heading_path, chunk.page, chunk.language) == (("Gezeiten",), None, "de")


async def test_the_child_is_reused(world: World) -> None:
    await world.still_works()
    first = world.child_pid
    await world.still_works()
    assert world.child_pid == first


async def test_documents_that_come_at_once_are_parsed_one_after_the_other(world: World, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.txt" for number in range(5)]
    for path in paths:
        path.write_text(f"Document {path.stem}.")
    outcomes = await asyncio.gather(*(world.parser.parse(path, path.name, None) for path in paths))
    assert [outcome.chunks[0].text for outcome in outcomes] == [f"Document {number}." for number in range(5)]


async def test_a_failed_document_keeps_the_child(world: World) -> None:
    await world.still_works()
    first = world.child_pid
    await world.fails(NoText, b" \n", "blank.txt")
    await world.still_works()
    assert world.child_pid == first


# --- bombs -------------------------------------------------------------------------------------------------------


async def test_a_docx_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(world: World) -> None:
    filler = files.word_paragraph("x" * 1000) * 60_000
    bomb = files.docx(filler)
    assert len(bomb) < len(filler) // 200
    started = time.monotonic()
    await world.fails(DecompressionLimit, bomb, "bomb.docx")
    assert time.monotonic() - started < 5
    await world.still_works()


async def test_a_workbook_of_billion_laughs_is_refused(world: World) -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    prolog = f'<?xml version="1.0"?><!DOCTYPE worksheet [<!ENTITY l0 "ha">{laughs}]>'
    bomb = files.xlsx('<row><c t="inlineStr"><is><t>&l9;</t></is></c></row>', prolog=prolog)
    await world.fails(DecompressionLimit, bomb, "laughs.xlsx")
    await world.still_works()


async def test_xml_of_billion_laughs_is_refused(world: World) -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l0 "{"ha" * 50}">{laughs}]><a>&l9;</a>'
    await world.fails(DecompressionLimit, bomb.encode(), "laughs.xml")
    await world.still_works()


async def test_a_pdf_page_that_inflates_without_end_costs_one_document(world: World) -> None:
    page = zlib.compress(zlib.compress(b"(a) Tj " * (60 * MEGABYTE), 9), 9)
    with pytest.raises((TooLargeToProcess, DecompressionLimit, ParseTimeout, NoText)):
        await world.parse(files.pdf_of_streams([page], "/FlateDecode /FlateDecode"), "bomb.pdf")
    await world.still_works()


async def test_a_pdf_whose_outline_runs_in_a_circle_is_read(world: World) -> None:
    outline = (
        "1000 0 obj <</Type /Outlines /First 1001 0 R /Last 1002 0 R>> endobj\n"
        "1001 0 obj <</Title (One) /Parent 1000 0 R /Next 1002 0 R /First 1001 0 R>> endobj\n"
        "1002 0 obj <</Title (Two) /Parent 1000 0 R /Next 1001 0 R /First 1000 0 R>> endobj\n"
    )
    outcome = await world.parse(files.pdf("Harbour regulations", outline=outline), "endless.pdf")
    assert outcome.chunks[0].text == "Harbour regulations"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("deep.json", b"[" * 300_000 + b'"bottom"' + b"]" * 300_000),
        ("deep.html", b"<html>" + b"<div>" * 200_000 + b"bottom"),
        ("deep.xml", b"<?xml version='1.0'?>" + b"<a>" * 200_000 + b"bottom" + b"</a>" * 200_000),
        ("comments.html", b"<html>bottom" + b"<!--" * 200_000),
        ("dots.txt", b"bottom" + b"." * 500_000),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_deep_nesting_and_endless_repeats_are_read_in_good_time(world: World, name: str, data: bytes) -> None:
    outcome = await world.parse(data, name)
    assert any("bottom" in chunk.text for chunk in outcome.chunks)


async def test_a_docx_nested_too_deeply_is_corrupt(world: World) -> None:
    await world.fails(Corrupt, files.docx("<w:sdt>" * 5_000 + "</w:sdt>" * 5_000), "deep.docx")
    await world.fails(Corrupt, files.docx("<w:sdt>" * 1_900 + "</w:sdt>" * 1_900), "deep.docx")
    await world.still_works()


# --- size --------------------------------------------------------------------------------------------------------


async def test_a_million_tiny_lines_are_too_many_chunks_where_fewer_are_allowed(tmp_path: Path) -> None:
    world = World(tmp_path, SETTINGS.model_copy(update={"max_chunks": 100}))
    await world.fails(TooManyChunks, b"tiny line\n" * 1_000_000, "lines.txt")
    await world.parser.aclose()


async def test_many_tiny_lines_become_chunks_where_they_are_allowed(world: World) -> None:
    outcome = await world.parse(b"tiny\n" * 300_000, "lines.txt")
    assert outcome.characters == 1_500_000
    assert 300_000 / 200 < len(outcome.chunks) < 20_000


async def test_one_line_of_fifty_megabytes_ends_with_a_named_outcome(tmp_path: Path) -> None:
    world = World(tmp_path, SETTINGS.model_copy(update={"parse_timeout_s": 10, "max_chunks": 1_000}))
    with pytest.raises((TooManyChunks, ParseTimeout, TooLargeToProcess)):
        await world.parse(b"word " * 10_000_000, "line.txt")
    await world.still_works()
    await world.parser.aclose()


async def test_a_file_larger_than_the_memory_it_may_take_is_too_large_to_process(tmp_path: Path) -> None:
    limits = {"max_whole_bytes": 200 * MEGABYTE, "parse_memory_bytes": 64 * MEGABYTE}
    world = World(tmp_path, SETTINGS.model_copy(update=limits))
    await world.fails(TooLargeToProcess, b"tide\n" * 30_000_000, "tides.rst")
    await world.still_works()
    await world.parser.aclose()


async def test_a_text_is_read_in_parts_where_there_is_no_memory_for_the_whole(tmp_path: Path) -> None:
    """What was read before each part goes to another process, as it may in another function."""
    world = World(tmp_path, SETTINGS.model_copy(update={"parse_memory_bytes": 64 * MEGABYTE, "max_chunks": 100_000}))
    path = tmp_path / "notes.txt"
    path.write_bytes(b"".join(b"%d tides rise and fall in this harbour\n" % number for number in range(400_000)))
    with pytest.raises(TooLargeToProcess):
        await world.parser.parse(path, "notes.rst", None)
    cursor: ParseCursor | None = None
    ordinals: list[int] = []
    while cursor is not None or not ordinals:
        outcome = await world.parser.parse(path, "notes.txt", None, cursor)
        ordinals += [chunk.ordinal for chunk in outcome.chunks]
        assert outcome.first_ordinal == (0 if cursor is None else cursor.chunks)
        cursor = outcome.next
        world.parser.close()
    assert ordinals == list(range(len(ordinals)))
    assert outcome.chunks[-1].text.endswith("399999 tides rise and fall in this harbour")
    assert outcome.characters == path.stat().st_size


async def test_chunks_of_all_parts_together_are_limited(tmp_path: Path) -> None:
    world = World(tmp_path, SETTINGS.model_copy(update={"part_bytes": 64 * 1024, "max_chunks": 200}))
    path = tmp_path / "notes.txt"
    path.write_bytes(b"".join(b"%d tides rise and fall in this harbour\n" % number for number in range(5_000)))
    first = await world.parser.parse(path, "notes.txt", None)
    assert first.next is not None
    with pytest.raises(TooManyChunks):
        await world.parser.parse(path, "notes.txt", None, first.next)
    await world.parser.aclose()


async def test_a_workbook_that_repeats_one_long_text_in_every_cell_is_too_large_to_process(world: World) -> None:
    text = "<si><t>" + "long text " * 2_000 + "</t></si>"
    workbook = files.xlsx('<row><c t="s"><v>0</v></c></row>' * 30_000, strings=text)
    assert len(workbook) < MEGABYTE
    await world.fails(TooLargeToProcess, workbook, "echo.xlsx")
    await world.still_works()


# --- time, crashes, and the end ----------------------------------------------------------------------------------


async def test_a_document_that_takes_too_long_is_stopped_in_time(hasty_world: World) -> None:
    started = time.monotonic()
    await hasty_world.fails(ParseTimeout, b"tiny line\n" * 1_000_000, "lines.txt")
    assert time.monotonic() - started < 3
    await hasty_world.still_works()


async def test_cancelling_frees_the_parser_for_the_next_document(world: World) -> None:
    await world.still_works()
    first = world.child_pid
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await world.parse(b"tiny line\n" * 1_000_000, "lines.txt")
    started = time.monotonic()
    await world.still_works()
    assert world.child_pid != first
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("sent", "kind"), [(signal.SIGSEGV, Corrupt), (signal.SIGABRT, Corrupt), (signal.SIGKILL, TooLargeToProcess)]
)
async def test_a_crash_is_told_from_an_out_of_memory_kill(
    world: World, sent: signal.Signals, kind: type[DocumentError]
) -> None:
    await world.still_works()
    work = asyncio.create_task(world.parse(b"tiny line\n" * 1_000_000, "lines.txt"))
    await asyncio.sleep(0.3)
    os.kill(world.child_pid, sent)
    with pytest.raises(kind):
        await work
    await world.still_works()


async def test_a_child_that_died_while_idle_is_replaced_unseen(world: World) -> None:
    await world.still_works()
    os.kill(world.child_pid, signal.SIGKILL)
    await asyncio.sleep(0.1)
    await world.still_works()


def test_a_parser_outlives_the_event_loop_it_was_first_used_in(tmp_path: Path) -> None:
    world = World(tmp_path, SETTINGS)
    for _ in range(2):
        asyncio.run(world.still_works())
    world.parser.close()


async def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    world = World(tmp_path, SETTINGS)
    await world.still_works()
    assert [entry.name.startswith("edda-parser-") for entry in folder.iterdir()] == [True]
    await world.parser.aclose()
    assert list(folder.iterdir()) == []


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "good.md"
    path.write_bytes(GOOD)
    script = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from edda.adapters.parser_process import ParserProcess\n"
        "from edda.settings import Settings\n"
        "parser = ParserProcess(Settings())\n"
        "asyncio.run(parser.parse(Path(sys.argv[1]), 'good.md', None))\n"
        "print(parser._child._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # nobody is left to tidy up
    command = [sys.executable, "-c", script, str(path)]
    parent = subprocess.run(command, capture_output=True, check=False, env=environment)
    child = int(parent.stdout)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}/stat").exists() and _is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(child)


def _is_running(pid: int) -> bool:
    """Whether a process is neither gone nor a zombie that nobody has collected yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_limited_process_can_open_no_socket_and_start_no_program() -> None:
    script = (
        "import os, socket, sys\n"
        "from edda import sandbox\n"
        "sandbox.enter(10**9)\n"
        "for attempt in (lambda: socket.socket(), lambda: os.execv('/bin/true', ['true'])):\n"
        "    try:\n"
        "        attempt()\n"
        "    except PermissionError:\n"
        "        print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["refused", "refused"]
    with socket.socket():
        pass  # this process is not limited


async def test_the_child_sees_no_credentials(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for the parser")
    await world.still_works()
    environment = await asyncio.to_thread(Path(f"/proc/{world.child_pid}/environ").read_bytes)
    assert b"not for the parser" not in environment
