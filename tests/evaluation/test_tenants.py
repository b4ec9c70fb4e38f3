"""A change of code that takes documents in makes another tenant of a collection; any other change does not."""

import subprocess
import sys

from evaluation.__main__ import EXAMPLE, TAKEN_IN_BY, settings_of, tenant_of
from evaluation.judged import load
from local.settings import ROOT

CORE = ROOT / "layers" / "core" / "edda"


def test_all_that_reads_cuts_and_weighs_a_document_counts() -> None:
    code = "import sys, edda.parts, edda.terms; print(*(name for name in sys.modules if name.startswith('edda.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    read = [name.split(".")[1] for name in done.stdout.split()]
    assert "chunking" in read
    assert {name for name in read if name not in TAKEN_IN_BY} <= {name.removesuffix(".py") for name in TAKEN_IN_BY}
    assert [name for name in TAKEN_IN_BY if not (CORE / name).exists()] == []


def test_settings_of_search_alone_make_no_other_tenant() -> None:
    collection = load(EXAMPLE)
    usual = tenant_of(collection, settings_of({}))
    assert tenant_of(collection, settings_of({"EDDA_RERANK_CANDIDATES": "7"})) == usual
    assert tenant_of(collection, settings_of({"EDDA_CHUNK_TOKENS": "300"})) != usual
    assert tenant_of(collection, settings_of({"EDDA_PROVIDER_BASE_URL": "http://elsewhere"})) != usual
