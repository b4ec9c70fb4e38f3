"""`make evaluate-answers MORE=--faithful`: how often an answer is rejected that has nothing but words of its document.

Such answers are made by rules, of the sentences of the judged document that have most of the question's words: copied,
two of them, one with every third word left out (numbers stay), one behind the question. What a chat model would write
in words of its own is another matter.
"""

from collections import Counter
from uuid import UUID

from edda.extracting import asked_words, pieces
from edda.grounding import Rejected, ground
from edda.models import Hit
from edda.prompting import RULES, Draft, DraftCitation
from edda.terms import query_terms
from edda.words import words
from rich.console import Console

from evaluation.judged import Collection, Item
from local.errors import LocalError

EVERY = 3
FEWEST_WORDS = 5


def measure(console: Console, collection: Collection, questions: dict[str, str]) -> None:
    """Print how many are rejected, and why. Raises LocalError for documents that are files: no parser reads them."""
    items = {item.item_id: item for item in collection.items if item.path is None}
    if not items:
        raise LocalError("--faithful takes corpus.jsonl")
    answers, rejected, reasons = Counter[str](), Counter[str](), Counter[str]()
    for query, text in questions.items():
        relevant = [one for one, relevance in collection.qrels.get(query, {}).items() if relevance > 0 and one in items]
        if not relevant:
            continue
        passage = _passage(items[relevant[0]], text)
        for name, draft in _drafts(passage, text).items():
            answers[name] += 1
            try:
                ground(draft, [passage], [text], RULES)
            except Rejected as reason:
                rejected[name] += 1
                reasons[str(reason)] += 1
    console.print(f"{collection.name}: faithful answers that are rejected")
    for name, count in answers.items():
        console.print(f"{name:28}{rejected[name]:4} of {count}")
    for why, count in reasons.items():
        console.print(f"{count:4} {why}")


def _passage(item: Item, question: str) -> Hit:
    """The whole document, in the question's language."""
    nobody = UUID(int=0)
    text = item.body().decode()
    language = next(iter(query_terms(question).languages), None)
    return Hit(nobody, nobody, nobody, 0, item.name, item.title, text, 0, len(text), None, (), language, {}, (), 0.0)


def _drafts(passage: Hit, question: str) -> dict[str, Draft]:
    asked = asked_words(question)
    sentences = [passage.text[one.start : one.end] for one in pieces(passage.text)]
    best = sorted(sentences, key=lambda sentence: -len(words(sentence) & asked))[:2]
    if not best:
        return {}
    first = best[0]
    drafts = {
        "copied": _draft(first, first),
        "two copied": _draft(" ".join(best), *best),
        "behind the question": _draft(f"{question.rstrip('?. ')}: {first}", first),
    }
    said = first.split()
    if len(said) >= FEWEST_WORDS:
        kept = [word for at, word in enumerate(said) if at % EVERY or any(sign.isdigit() for sign in word)]
        drafts["every third word left out"] = _draft(" ".join(kept), first)
    return drafts


def _draft(text: str, *quotes: str) -> Draft:
    """On one line, as a model writes a sentence."""
    citations = [DraftCitation(passage=1, quote=quote) for quote in quotes]
    return Draft(answer=f"{' '.join(text.split())} [1]", citations=citations)
