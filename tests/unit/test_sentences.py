"""Where a sentence ends, and where it only looks so."""

import time

import pytest
from edda.sentences import parts, sentence_ends


def sentences(text: str) -> list[str]:
    return [text[slice(*span)] for span in parts(text, 0, len(text), sentence_ends)]


@pytest.mark.parametrize(
    "text",
    [
        "Resturlaub verfällt am 31. März des Folgejahres.",
        "Das Fest findet am 3. Oktober 2027 statt.",
        "Das Amt ist am 3. Montag im Monat zu.",
        "Die Frist endet am 14. 9. 2027 um 12 Uhr.",
        "Der 2. Stellvertreter heißt Bernd Maigruber.",
        "2. Stellvertreter ist Bernd Maigruber.",
        "Im 3. Quartal steigt der Umsatz.",
        "Der Bau kostet ca. 5 Euro je Stein.",
        "Der Bau kostet ca. Tausend Euro.",
        "Er kostet 4,8 Mio. Euro.",
        "Die Feuerwehr erhält gem. Satzung 300 Euro.",
        "Es gilt § 5 Abs. 2 der Satzung, vgl. Art. 7 und z. B. Nr. 9, d. h. Bd. 3.",
        "Siehe i. d. R. Hauptstr. 5.",
        "The toll is approx. 2.50 pounds.",
        "The bridge opened on Sept. 14 1998.",
        "It was Mr. J. R. Smith of the U.S. Navy, e.g. Lt. Brown, vs. Col. White.",
        "See Fig. 3, No. 7, pp. 5 and Smith et al. (2019).",
        "It was Brown v. Board, c. 1954, um 50 v. Chr. in Rom, vom 1.–3. Mai, u. a. Herr Huber.",
        "Wait… and see. or not? yes!",
        "1. Open the valve.",
        "El contrato, aprox. 5 años, es del Sr. García, pág. 3.",
        "Он живет в г. Москва, т. е. там.",
        "Café no. 5 à côté. ça va.",
    ],
)
def test_an_abbreviation_or_an_ordinal_ends_no_sentence(text: str) -> None:
    assert sentences(text) == [text]


@pytest.mark.parametrize(
    "divided",
    [
        "It costs 5.|Then it rains.",
        "I am 25.|My name is Ann.",
        "The year was 1998.|He left in Sept.|The bridge was open at 5 p.m.|All cheered.",
        "The answer is no.|The bridge is 5 m.|It weighs 3 kg.|It runs HTML.|Good.",
        "Plague came in 1740–42.|It was 27/100.|Of oxygen-18.|Given n.|It is of the Hepatitis-C.|So it is.",
        "The run was long.|25 people came.",
        'Wait...|Then go!|Go?|"Yes."|Who\'s there?',
        "Der Preis beträgt 25.|Die Frist endet.|Es gibt Brot usw.|Danach ist Schluss.",
        "Step one is done.|2. Close the valve.|3. Go.",
        "See No. 7.|The rest is in Abs. 2.|Der Rest nicht.",
        "员工有假期。|办公室关门！|好",
        "꼭 확인할 것.|그다음에 간다.",
        "სახლი დიდია.|ბაღი პატარაა.",
        "नमस्ते।|कैसे हो?|ठीक",
    ],
)
def test_a_sentence_ends_where_it_does(divided: str) -> None:
    wanted = divided.split("|")
    joined = "".join(one + ("" if one[-1] in "。！" else " ") for one in wanted)
    assert sentences(joined) == wanted


@pytest.mark.parametrize("unit", [".", "1. ", "a. ", "ca. ", ". ", "x", "1", "\n1. ", "- ", "Der 1. "])
def test_any_text_takes_time_in_proportion(unit: str) -> None:
    began = time.process_time()
    sentences(unit * (1_000_000 // len(unit)))
    assert time.process_time() - began < 5
