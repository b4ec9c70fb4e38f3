"""Scores of a folder of results: `evaluation/.venv/bin/python -m evaluation.scoring FOLDER [--baseline scores.json]`.

Measures are ir-measures' (trec_eval underneath), intervals and significance SciPy's: this only reads files, asks
them, and shows the answer. A question that is judged and that nothing was found for counts as 0. Judged passages have
no library: the shares of characters are those of Chroma's chunking evaluation, of the first five hits.

Writes `scores.json`, which is what a later run takes as `--baseline`, and `scores.svg`.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ir_measures
import matplotlib as mpl
import numpy as np
from ir_measures import AP, RR, R, nDCG
from matplotlib import pyplot as plt
from scipy import stats

mpl.use("svg")

PASSAGES = 5
CHARACTERS = 4_000
RESAMPLES = 9_999
SEED = 20_261_121
Values = dict[str, float]  # by question
Scores = dict[str, dict[str, Values]]  # by mode, then by measure
Spans = dict[str, list[tuple[int, int]]]  # by document


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m evaluation.scoring", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--baseline", type=Path, help="scores.json of an earlier run on the same questions")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    facts = json.loads((folder / "run.json").read_text())
    scores = {mode: _scores(folder, mode, measures_of(facts["depth"])) for mode in facts["modes"]}
    summary = summarise(scores)
    baseline = json.loads(arguments.baseline.read_text()) if arguments.baseline else None
    differences = compare(scores, baseline["per_question"]) if baseline else {}
    written = {"run": facts, "scores": summary, "differences": differences, "per_question": scores}
    (folder / "scores.json").write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")
    _plot(folder / "scores.svg", facts["collection"], summary, differences)
    print(table(summary, differences))


def measures_of(depth: int) -> dict[str, Any]:
    """By name: of no more documents than were asked for."""
    first, most = min(10, depth), min(100, depth)
    return {f"nDCG@{first}": nDCG @ first, f"Recall@{most}": R @ most, f"MRR@{first}": RR @ first, "MAP": AP}


def _scores(folder: Path, mode: str, measures: Mapping[str, Any]) -> dict[str, Values]:
    """Of each measure, by question."""
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for query, _, document, relevance in _rows(folder / "qrels.trec"):
        qrels[query][document] = int(relevance)
    judged = {query: documents for query, documents in qrels.items() if any(one > 0 for one in documents.values())}
    run: dict[str, dict[str, float]] = {query: {} for query in judged}
    for query, _, document, _, score, _ in _rows(folder / f"run-{mode}.trec"):
        if query in run:
            run[query][document] = float(score)
    found = {query: documents or {"": 0.0} for query, documents in run.items()}  # else the library leaves it out
    scores: dict[str, Values] = {name: {} for name in measures} if judged else {}
    names = {measure: name for name, measure in measures.items()}
    for one in ir_measures.iter_calc(list(measures.values()), judged, found) if judged else ():
        scores[names[one.measure]][one.query_id] = float(one.value)
    return scores | passage_scores(_judged_spans(folder), _found_spans(folder / f"spans-{mode}.jsonl"))


def passage_scores(
    judged: Mapping[str, Spans], found: Mapping[str, Sequence[tuple[str, int, int]]]
) -> dict[str, Values]:
    """Shares of characters: of those judged, how many the first five passages hold (and their first 4,000 characters);
    of those in the passages, how many are judged; and the intersection over the union."""
    scores: dict[str, Values] = defaultdict(dict)
    for query, wanted in judged.items():
        hits = found.get(query, ())[:PASSAGES]
        inside, asked, given = _shares(wanted, hits)
        within, _, _ = _shares(wanted, _first(hits, CHARACTERS))
        scores[f"characters@{PASSAGES}"][query] = inside / asked
        scores[f"characters@{PASSAGES}/{CHARACTERS}"][query] = within / asked
        scores[f"precision@{PASSAGES}"][query] = inside / given if given else 0.0
        scores[f"IoU@{PASSAGES}"][query] = inside / (asked + given - inside)
    return scores


def _shares(wanted: Spans, hits: Iterable[tuple[str, int, int]]) -> tuple[int, int, int]:
    """Characters that are in both, that are wanted, that are in the hits; each counts once."""
    given: dict[str, set[int]] = defaultdict(set)
    for document, start, end in hits:
        given[document].update(range(start, end))
    asked = {document: {at for start, end in spans for at in range(start, end)} for document, spans in wanted.items()}
    both = sum(len(places & given[document]) for document, places in asked.items())
    return both, sum(map(len, asked.values())), sum(map(len, given.values()))


def _first(hits: Iterable[tuple[str, int, int]], left: int) -> Iterable[tuple[str, int, int]]:
    for document, start, end in hits:
        yield document, start, min(end, start + left)
        left -= min(left, end - start)


def summarise(scores: Scores) -> dict[str, dict[str, dict[str, float]]]:
    """By mode and measure: the mean, and where it lies in 95 of 100 resamples of the questions."""
    return {
        mode: {name: _interval(np.array(list(values.values()))) for name, values in measures.items()}
        for mode, measures in scores.items()
    }


def compare(scores: Scores, baseline: Scores) -> dict[str, dict[str, dict[str, float]]]:
    """By mode and measure: the mean difference to the baseline over the questions that both have, its interval, and how
    often as large a one is seen when it is drawn by lot which of the two values of a question is the baseline's."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for mode, measures in scores.items():
        for name, values in measures.items():
            before = baseline.get(mode, {}).get(name, {})
            common = sorted(values.keys() & before.keys())
            if len(common) < 2:
                continue
            difference = np.array([values[query] - before[query] for query in common])
            p = 1.0
            if difference.any():
                signs = stats.permutation_test(
                    (difference,),
                    np.mean,
                    permutation_type="samples",
                    n_resamples=RESAMPLES,
                    vectorized=True,
                    batch=1_000,
                    rng=np.random.default_rng(SEED),
                )
                p = float(signs.pvalue)
            better, worse = int((difference > 0).sum()), int((difference < 0).sum())
            counts = {"questions": len(common), "better": better, "worse": worse}
            found.setdefault(mode, {})[name] = _interval(difference) | {"p": p} | counts
    return found


def _interval(values: Any) -> dict[str, float]:
    mean = float(values.mean())
    if len(values) < 2 or not np.ptp(values):
        return {"mean": mean, "low": mean, "high": mean}
    bootstrap = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, method="percentile", batch=1_000, rng=np.random.default_rng(SEED)
    )
    low, high = bootstrap.confidence_interval
    return {"mean": mean, "low": float(low), "high": float(high)}


def table(summary: Mapping[str, Any], differences: Mapping[str, Any]) -> str:
    """For a terminal."""
    lines = []
    for mode, measures in summary.items():
        for name, one in measures.items():
            line = f"{mode:<8} {name:<19} {one['mean']:.4f}  [{one['low']:.4f}, {one['high']:.4f}]"
            if difference := differences.get(mode, {}).get(name):
                line += (
                    f"   {difference['mean']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]"
                    f" p = {difference['p']:.4f} ({difference['better']} better, {difference['worse']} worse)"
                )
            lines.append(line)
    heads = f"{'mode':<8} {'measure':<19} mean    95 % of resamples"
    return "\n".join([heads + ("   against the baseline" if differences else ""), *lines])


def _plot(file: Path, title: str, summary: Mapping[str, Any], differences: Mapping[str, Any]) -> None:
    """The modes beside each other for each measure, with intervals; the black lines are where the baseline is."""
    names = list(next(iter(summary.values())))
    width = 0.8 / len(summary)
    figure, axes = plt.subplots(figsize=(1.6 * len(names) + 2, 4), layout="constrained")
    for index, (mode, measures) in enumerate(summary.items()):
        places = [place + (index - (len(summary) - 1) / 2) * width for place in range(len(names))]
        means = [measures[name]["mean"] for name in names]
        spread = [[measures[name]["mean"] - measures[name]["low"] for name in names]]
        spread += [[measures[name]["high"] - measures[name]["mean"] for name in names]]
        axes.bar(places, means, width * 0.9, yerr=spread, capsize=3, label=mode)
        for place, name in zip(places, names, strict=True):
            if difference := differences.get(mode, {}).get(name):
                before = measures[name]["mean"] - difference["mean"]
                axes.hlines(before, place - width / 2, place + width / 2, colors="black")
    axes.set_xticks(range(len(names)), names)
    axes.set(title=title, ylim=(0, 1.05))
    axes.legend(loc="lower right")
    figure.savefig(file)
    plt.close(figure)


def _rows(file: Path) -> list[list[str]]:
    return [line.split("\t") for line in _lines(file)]


def _lines(file: Path) -> list[str]:
    """Line feeds alone end them: an id may hold other separators."""
    return file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []


def _judged_spans(folder: Path) -> dict[str, Spans]:
    judged: dict[str, Spans] = {}
    for query, document, start, end in _rows(folder / "spans.tsv")[1:]:
        judged.setdefault(query, {}).setdefault(document, []).append((int(start), int(end)))
    return judged


def _found_spans(file: Path) -> dict[str, list[tuple[str, int, int]]]:
    lines = map(json.loads, _lines(file))
    return {line["query_id"]: [(hit["doc"], hit["start"], hit["end"]) for hit in line["hits"]] for line in lines}


if __name__ == "__main__":
    main()
