"""Judged collections, in all the forms they come in."""

import json
from pathlib import Path

import pytest

from evaluation.judged import load, missing_documents, sample, unasked
from evaluation.runs import write_judgements
from local.errors import LocalError

DOCUMENTS = [{"_id": "d1", "title": "One", "text": "first"}, {"_id": "d2", "title": "", "text": "second"}]


def lines(*objects: object) -> str:
    return "".join(json.dumps(one) + "\n" for one in objects)


def collection(folder: Path, qrels: str = "q1\td1\t1\n", *, at: str = "qrels.tsv", ids: str = "_id") -> Path:
    documents = [{ids if key == "_id" else key: value for key, value in one.items()} for one in DOCUMENTS]
    (folder / "corpus.jsonl").write_text(lines(*documents))
    (folder / "queries.jsonl").write_text(lines({ids: "q1", "text": "what?"}, {ids: "q2", "text": "who?"}))
    (folder / at).parent.mkdir(exist_ok=True)
    (folder / at).write_text(qrels)
    return folder


@pytest.mark.parametrize(
    "qrels",
    [
        "q1\td1\t2\n",
        "query-id\tcorpus-id\tscore\nq1\td1\t2\n",
        "q1 0 d1 2\n",
        "q1\t0\td1\t2\n",
        "query_id iteration doc_id relevance\nq1 0 d1 2\n",
    ],
)
def test_judgements_are_read_with_and_without_a_header_in_three_or_four_columns(tmp_path: Path, qrels: str) -> None:
    loaded = load(collection(tmp_path, qrels))
    assert loaded.qrels == {"q1": {"d1": 2}}
    assert loaded.judged == {"q1": "what?"}


@pytest.mark.parametrize("at", ["qrels.tsv", "qrels/test.tsv", "qrels/dev.tsv"])
@pytest.mark.parametrize("ids", ["_id", "id"])
def test_both_layouts_of_ids_and_of_judgements_are_read(tmp_path: Path, at: str, ids: str) -> None:
    loaded = load(collection(tmp_path, at=at, ids=ids))
    assert [item.item_id for item in loaded.items] == ["d1", "d2"]
    assert [item.body() for item in loaded.items] == [b"One\n\nfirst", b"second"]


def test_files_are_called_as_the_judgements_call_them(tmp_path: Path) -> None:
    collection(tmp_path, "q1\ta\t1\nq1\tsub/b.md\t1\n")
    (tmp_path / "corpus.jsonl").unlink()
    (tmp_path / "docs" / "sub").mkdir(parents=True)
    for name in ("a.md", "sub/b.md", "c.txt", ".hidden"):
        (tmp_path / "docs" / name).write_text(name)
    loaded = load(tmp_path)
    assert {item.item_id: item.name for item in loaded.items} == {"a": "a.md", "sub/b.md": "b.md", "c.txt": "c.txt"}
    assert missing_documents(loaded) == []


def test_passages_are_read(tmp_path: Path) -> None:
    collection(tmp_path)
    (tmp_path / "qrels.tsv").unlink()
    (tmp_path / "corpus.jsonl").unlink()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "d1.txt").write_text("a text")
    (tmp_path / "spans.tsv").write_text("query_id\tdoc\tstart\tend\nq2\td1\t3\t9\nq2\td1\t11\t12\n")
    loaded = load(tmp_path)
    assert loaded.spans == {"q2": {"d1": [(3, 9), (11, 12)]}}
    assert loaded.judged == {"q2": "who?"}


def test_a_judgement_may_be_there_twice(tmp_path: Path) -> None:
    assert load(collection(tmp_path, "q1\td1\t1\nq1\td1\t1\n")).qrels == {"q1": {"d1": 1}}


def test_the_fingerprint_is_that_of_the_documents(tmp_path: Path) -> None:
    before = load(collection(tmp_path)).fingerprint
    (tmp_path / "qrels.tsv").write_text("q2\td2\t1\n")
    assert load(tmp_path).fingerprint == before
    (tmp_path / "corpus.jsonl").write_text(lines(DOCUMENTS[0], {"_id": "d2", "text": "seconds"}))
    assert load(tmp_path).fingerprint != before


def test_a_sample_is_of_the_judged_questions_and_always_the_same(tmp_path: Path) -> None:
    queries = [{"_id": f"q{n}", "text": f"{n}?"} for n in range(20)]
    collection(tmp_path, "".join(f"q{n}\td1\t1\n" for n in range(10)))
    (tmp_path / "queries.jsonl").write_text(lines(*queries))
    some, more = sample(load(tmp_path), 3), sample(load(tmp_path), 6)
    assert set(some.judged) == set(some.qrels) == set(some.queries) < set(more.judged) < {f"q{n}" for n in range(10)}
    assert len(some.judged) == 3


def test_separators_of_lines_within_a_text_end_no_line(tmp_path: Path) -> None:
    text = "one\u2028two\x85three\x0bfour"
    collection(tmp_path)
    (tmp_path / "corpus.jsonl").write_bytes(f'{{"_id": "d1", "text": "{text[:3]}\u2028\x85"}}\r\n'.encode())
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q1", "text": text}, ensure_ascii=False) + "\n")
    loaded = load(tmp_path)
    assert loaded.queries == {"q1": text}
    assert loaded.items[0].text == "one\u2028\x85"


def test_a_judged_question_that_nobody_asks_is_counted_and_not_scored(tmp_path: Path) -> None:
    loaded = load(collection(tmp_path, "q1\td1\t1\nq7\td1\t1\n"))
    assert unasked(loaded) == 1
    write_judgements(tmp_path, loaded)
    assert (tmp_path / "qrels.trec").read_text() == "q1\t0\td1\t1\n"


def test_a_judged_document_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert missing_documents(load(collection(tmp_path, "q1\td1\t1\nq1\td9\t1\nq1\td8\t0\n"))) == ["d9"]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("corpus.jsonl", "", "holds no documents"),
        ("corpus.jsonl", "{}\n", 'corpus.jsonl, line 1: has no "_id"'),
        ("corpus.jsonl", "\n[]\n", "corpus.jsonl, line 2: is no JSON object"),
        ("corpus.jsonl", lines(DOCUMENTS[0], DOCUMENTS[0]), "two documents have the same id"),
        ("queries.jsonl", '{"_id": "q1"}\n', 'queries.jsonl, line 1: has no "text"'),
        ("queries.jsonl", '{"_id": "q1", "text": " "}\n', "queries.jsonl, line 1: a question has 1 to 8000 characters"),
        (
            "queries.jsonl",
            lines({"_id": "q1", "text": "a"}, {"_id": "q1", "text": "b"}),
            "line 2: a question with this",
        ),
        ("qrels.tsv", "q1\td1\tyes\n", "qrels.tsv, line 1: is not query, document, relevance"),
        ("qrels.tsv", "q1\td1\t0.5\n", "a whole number"),
        ("qrels.tsv", "q1\td1\t1\nq1\td1\t0\n", "line 2: this document was judged"),
        ("spans.tsv", "q1\td1\t1\t2\n", "passages are judged in files"),
        ("spans.tsv", "q1\td1\t5\t5\n", "spans.tsv, line 1: start is 0 or more"),
        ("queries.jsonl", lines({"_id": "q9", "text": "?"}), "no question of queries.jsonl is judged"),
        ("qrels.tsv", "q1\td1\t1\nq1\td2\tyes\n", "qrels.tsv, line 2: is not query, document, relevance"),
        ("qrels.tsv", "q1\td1\t0\n", "no question of queries.jsonl is judged"),
        ("spans.tsv", "q1\td1\t1\t2\nq1\td1\t1\n", "spans.tsv, line 2: is not query, document, start, end"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, file: str, content: str, said: str) -> None:
    (collection(tmp_path) / file).write_text(content)
    with pytest.raises(LocalError, match=said):
        load(tmp_path)


@pytest.mark.parametrize(("file", "said"), [("queries.jsonl", "cannot be read"), ("qrels.tsv", "has no qrels.tsv")])
def test_a_missing_file_is_named(tmp_path: Path, file: str, said: str) -> None:
    (collection(tmp_path) / file).unlink()
    with pytest.raises(LocalError, match=said):
        load(tmp_path)
