"""Every real document through the whole stack: its end, its probes in the stored chunks, and found by search.

Takes some minutes: about 7,000 chunks are embedded by the in-process model.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from local import deploy
from local.client import EddaClient
from local.stack import Stack, create_api_key
from local.uploading import Sender, SentFile, files_of, sending
from local.watching import watch
from tests.manifest import ABSENT, DOCUMENTS, RealDocument, normalised, real_documents

pytestmark = [
    pytest.mark.stack,
    pytest.mark.shared_data,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not real_documents(), reason=ABSENT),
]
TENANT = "real-documents"
PATIENCE_S = 2000


@dataclass(frozen=True, slots=True)
class Ingested:
    """The stack's view of the real documents."""

    files: dict[str, SentFile]
    api: EddaClient
    http: httpx.Client

    def passages(self, document: RealDocument) -> list[str]:
        """The text of every stored chunk, normalised."""
        document_id = self.files[document.file].document_id
        found: list[str] = []
        query: dict[str, str] | None = {"limit": "100"}
        while query:
            page = self.http.get(f"documents/{document_id}/chunks", params=query).raise_for_status().json()
            found += [normalised(chunk["text"]) for chunk in page["chunks"]]
            query = {"limit": "100", "cursor": page["next_cursor"]} if page["next_cursor"] else None
        return found

    def search(self, document: RealDocument, question: str) -> list[str]:
        """The passages of a document nearest to a question, normalised."""
        only = {"field": "document_id", "op": "eq", "value": self.files[document.file].document_id}
        answer = self.http.post("search", json={"query": question, "top_k": 100, "filter": only}).raise_for_status()
        return [normalised(hit["text"]) for hit in answer.json()["hits"]]


@pytest.fixture(scope="module")
def ingested(running_stack: Stack) -> Iterator[Ingested]:
    """All of them at their end."""
    key = create_api_key(running_stack.database, TENANT)
    url = running_stack.deployment.api_url
    files = [file for file in files_of(DOCUMENTS) if file.path.name != "manifest.json"]
    http = httpx.Client(base_url=f"{url}/v1/", headers={"Authorization": f"Bearer {key}"}, timeout=60)
    with EddaClient(url, key) as api, http:
        s3 = deploy.client(running_stack.settings, "s3")
        with sending(Sender(api, s3, running_stack.deployment.uploads_bucket, TENANT), files):
            problems = watch(api, files, PATIENCE_S, lambda _: None)
        assert problems == []
        yield Ingested({file.name: file for file in files}, api, http)


def test_every_real_document_ends_as_the_manifest_says(ingested: Ingested) -> None:
    wrong = []
    for document in real_documents():
        file = ingested.files[document.file]
        end = "text" if file.status == "ready" else file.reason or file.status
        if not document.may_end_as(end) or (file.status == "ready") != (file.chunks > 0):
            wrong.append((document.file, document.expected, file.status, file.reason, file.chunks))
    assert wrong == []


def test_every_probe_is_in_a_stored_chunk(ingested: Ingested) -> None:
    missing = []
    for document in real_documents():
        if document.probes:
            passages = ingested.passages(document)
            missing += [(document.file, probe) for probe in document.probes if not any(probe in p for p in passages)]
    assert missing == []


def test_probes_are_found_by_search(ingested: Ingested) -> None:
    """Among the 100 nearest passages of the document, for nearly all: three words out of the middle of a sentence say
    little to a vector, and the model reads English only. Lexical search will have to find the rest.
    """
    asked = [(document, probe) for document in real_documents() for probe in document.probes]
    missing = [
        (document.file, probe)
        for document, probe in asked
        if not any(probe in passage for passage in ingested.search(document, probe))
    ]
    print(f"{len(asked) - len(missing)} of {len(asked)} probes found; not found: {missing}")
    assert len(missing) <= 0.10 * len(asked)
