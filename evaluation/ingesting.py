"""The documents of a collection into Edda: those that are not there yet, however often it was interrupted."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from evaluation.api import CORPUS_ID, DIGEST, Api, Route
from evaluation.judged import Collection, Item
from local.client import ApiError
from local.errors import LocalError, StepFailed
from local.watching import FINAL

EVERY_S = 2.0
ROUND = 64  # documents uploaded before those of the round before are worked on
REFUSED = frozenset({400, 413, 415, 422})  # it is about this document

Show = Callable[[int], None]


def ingest(
    route: Route, collection: Collection, within_s: float, show: Show, say: Callable[[str], object] = print
) -> dict[str, int]:
    """Upload what is missing and wait until all is ready. How many documents have which status or code of an error.

    `show` is told how many have come to an end, and `say` what is done to documents that were there. Raises LocalError
    when the tenant has other documents, StepFailed when they do not come to an end in time, ApiError.
    """
    api, wanted = Api(route.http), {item.item_id: item.digest for item in collection.items}
    found = list(api.documents())
    if strangers := sum(document["metadata"].get(CORPUS_ID) not in wanted for document in found):
        raise LocalError(
            f"this tenant has {strangers} documents that are not of this collection, and they would be found as well: "
            "use the key of a tenant of its own"
        )
    there: dict[str, str] = {}
    old: list[str] = []
    for document in found:
        item_id = document["metadata"][CORPUS_ID]
        is_worked_on = document["status"] in FINAL or route.side_by_side > 1  # in this process nobody goes on
        if is_worked_on and document["metadata"].get(DIGEST) == wanted[item_id] and item_id not in there:
            there[item_id] = document["status"]
        else:  # changed since, or left behind
            old.append(document["document_id"])
    if old:
        say(f"{len(old)} documents have changed, or were left behind: deleted and uploaded again")
    for document_id in old:
        api.delete(document_id)
    missing = [item for item in collection.items if item.item_id not in there]
    refused = _upload(route, api, missing, lambda sent: show(len(there) + sent))
    return refused + _wait(api, len(collection.items) - refused.total(), within_s, show)


def _upload(route: Route, api: Api, items: Sequence[Item], show: Show) -> Counter[str]:
    """Those that the API refused, by code."""
    refused: Counter[str] = Counter()

    def send(item: Item) -> bool:
        try:
            api.upload(item)
        except ApiError as error:
            if error.status not in REFUSED:
                raise
            refused[f"refused: {error.code}"] += 1
            return False
        return True

    with ThreadPoolExecutor(route.side_by_side, thread_name_prefix="upload") as pool:
        for first in range(0, len(items), ROUND):
            some = items[first : first + ROUND]
            sent = pool.map(send, some) if route.side_by_side > 1 else map(send, some)
            list(sent)  # raises what a thread raised
            route.work(last=first + ROUND >= len(items))
            show(first + len(some))
    return refused


def _wait(api: Api, documents: int, within_s: float, show: Show) -> Counter[str]:
    until = time.monotonic() + within_s
    while True:
        found = list(api.documents())
        ended = [one for one in found if one["status"] in FINAL]
        show(len(ended))
        if len(ended) >= documents:
            return Counter(one["error"]["code"] if one["error"] else one["status"] for one in ended)
        if time.monotonic() > until:
            raise StepFailed(f"{documents - len(ended)} of {documents} documents were not ready in {within_s:.0f} s")
        time.sleep(EVERY_S)
