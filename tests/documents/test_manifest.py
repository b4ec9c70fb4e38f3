"""Each real document ends as the manifest says: parsed and cut into chunks, in this process."""

import pytest
from edda.chunking import chunk
from edda.errors import DocumentError
from edda.parsing import parse

from tests.manifest import ABSENT, RealDocument, normalised, real_documents

pytestmark = [pytest.mark.shared_data, pytest.mark.skipif(not real_documents(), reason=ABSENT)]


@pytest.mark.parametrize("document", real_documents(), ids=lambda document: document.file)
def test_a_real_document_ends_as_the_manifest_says(document: RealDocument) -> None:
    end, parsed = "text", None
    try:
        parsed = parse(document.path.read_bytes(), document.path.name, None)
    except DocumentError as error:
        end = error.code

    assert document.may_end_as(end)
    if parsed is None:
        return
    chunks = chunk(parsed)
    assert chunks, "text that makes no chunk"
    assert len(parsed.text) >= document.min_chars
    assert all(one.text == parsed.text[one.char_start : one.char_end] for one in chunks)
    passages = [normalised(one.text) for one in chunks]
    for probe in document.probes:
        assert any(probe in passage for passage in passages), f"{probe!r} is whole in no chunk"
