"""S3 event notifications, as S3 writes them: at least once, in any order, keys form-encoded."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

METADATA_SUFFIX = ".metadata.json"  # Bedrock Knowledge Bases' convention
API_FOLDER = ".edda"  # `<tenant>/.edda/<document id>`: objects that came over HTTPS
SEQUENCER_WIDTH = 40


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """One record of an event: an object version was created, or the object was deleted."""

    key: str
    version_id: str  # "" in an unversioned bucket
    sequencer: str  # padded: plain string order is event order for one key
    removed: bool

    @property
    def is_metadata(self) -> bool:
        return self.document_key != self.key

    @property
    def document_key(self) -> str:
        return document_key_of(self.key)


def came_over_https(key: str) -> bool:
    """Is it the object of a document that the API made? Such a document has no metadata file beside it."""
    return key.split("/", 2)[1] == API_FOLDER


def document_key_of(key: str) -> str:
    """The key of the document: for `report.pdf.metadata.json` that is `report.pdf`."""
    name = key.rpartition("/")[2]
    return key if name == METADATA_SUFFIX else key.removesuffix(METADATA_SUFFIX)


def padded_sequencer(sequencer: str) -> str:
    """S3 sequencers of one key compare as hexadecimal strings, the shorter padded with zeros on the right."""
    return sequencer.lower().ljust(SEQUENCER_WIDTH, "0") if sequencer else ""


def just_after(sequencer: str) -> str:
    """A place in the order for what no event told of: after this one, before every later event.

    A plus sign sorts before all digits, so even what follows nothing at all ('') comes before the first event.
    """
    event, _, number = sequencer.partition("+")
    return f"{event}+{int(number or 0) + 1:06d}"


def object_changes(event: dict[str, Any]) -> Iterator[ObjectChange]:
    """Every change an event tells of. `s3:TestEvent` and events of other kinds tell of none.

    Raises ValueError when a record has not the shape S3 gives it.
    """
    if event.get("Event") == "s3:TestEvent":
        return
    records = event.get("Records")
    if not isinstance(records, list):
        raise ValueError("neither an S3 event nor a message of Edda's")  # noqa: TRY004 - the content is wrong
    for record in records:
        try:
            name, entry = record["eventName"], record["s3"]["object"]
            created, removed = "ObjectCreated:" in name, "ObjectRemoved:" in name
            # Lifecycle expiry of a current version removes it as well.
            removed = removed or "LifecycleExpiration:" in name
            if not (created or removed):
                continue
            yield ObjectChange(
                key=unquote_plus(entry["key"]),
                version_id=entry.get("versionId") or "",
                sequencer=padded_sequencer(entry.get("sequencer") or ""),
                removed=removed,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"an S3 record lacks or misshapes something: {error}") from error
