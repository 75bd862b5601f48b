"""Numbers, classes and letters in the ways that models write them, each with the answer that is meant."""

import pytest

from llmva.prompts.numbers import is_number, read_number
from llmva.prompts.tasks import read_answer

NUMBERS = {
    r"\boxed{1{,}234}": 1234, r"\boxed{\$1{,}234.50}": 1234.5, r"\boxed{12\,345}": 12345, r"\boxed{1\!,\!234}": 1234,
    "#### .5": 0.5, "The answer is .75": 0.75, "The answer is .75.": 0.75, "#### -.5": -0.5, "see p.5": 5, "7..": 7,
    r"\boxed{3 \times 10^5}": 3e5, r"\boxed{3 \times 10^{5}}": 3e5, r"\boxed{2.5 \cdot 10^{-2}}": 0.025,
    "3 x 10^5 m": 3e5, "about 3 \u00d7 10^5.": 3e5, "1e6": 1e6, "#### 1.5E3": 1500, "2e-3": 0.002, "it is 10^4": 1e4,
    "#### 1,00,000": 100000, "12,34,567": 1234567, "1.000.000": 1e6, "3.100": 3.1, "12.345.678 in all": 12345678,
    "1'234'567": 1234567, "\u20135": -5, "it is \u20135": -5, "it is \u22125": -5, "pages 12\u201314": 14,
    "12 \u2013 5": 5,
    "-$29.00": -29, "\\boxed{-\\$5}": -5, "#### 5 + 7 = 12": 12, r"\boxed{5 + 7 = 12}": 12, "#### x = 5": 5,
    r"\boxed{x \approx 3.1}": 3.1, "#### 18 (9 * 2 = 18, not 19)": 18, "#### (2 + 3) = 5 apples": 5, "#### 12 =": 12,
    r"\frac12": 0.5, r"\boxed{\dfrac{3}{4}}": 0.75, r"-\frac{1}{2}": -0.5, r"\frac{-1}{2}": -0.5, r"\tfrac 1{2}": 0.5,
    r"\boxed{2\frac{1}{2}}": 2.5, r"\boxed{-2\frac12}": -2.5, "it is 2 1/2": 2.5, "1/2": 0.5, "#### 12 345": 12345,
    "#### 12 345 in 7 days": 12345, "#### 5 apples": 5, r"\boxed{\text{12 apples}}": 12, r"\boxed{5\text{ m} + 7}": 5,
    "an area of 5 cm^2": 5, r"\boxed{5\text{ cm}^2}": 5, "12 345": 345, "5+4=9. 9+3=12. the answer is 12.": 12,
    "#### \\boxed{18}": 18, "1" * 400: float("inf"), "none": None, "": None,
}  # fmt: skip


@pytest.mark.parametrize(("reply", "number"), NUMBERS.items(), ids=[reply[:40] for reply in NUMBERS])
def test_a_number_is_read_as_it_is_meant(reply, number):
    assert read_number(reply) == read_answer("gsm", reply) == number


@pytest.mark.parametrize(("text", "is_one"), [("12", True), ("-1,000.5", True), ("1/2", True), ("1,00", False),
                                              ("12 apples", False), ("seven", False), ("", False)])  # fmt: skip
def test_a_number_is_told_from_a_text_with_one(text, is_one):
    assert is_number(text) == is_one


@pytest.mark.parametrize(
    ("task", "reply", "answer"),
    [
        ("sst", "**Positive**", "positive"), ("sst", '"positive"', "positive"), ("sst", "Positive.", "positive"),
        ("rte", "**True**", "true"), ("rte", "_True_", "true"), ("rte", "`false`", "false"), ("rte", "# True", "true"),
        ("sst", "\u201cNegative\u201d", "negative"), ("sst", "(negative)", "negative"), ("mrpc", "- same", "same"),
        ("sst", "\\boxed{\\text{positive}}", "positive"), ("mnli", "> **Neutral**: it may", "neutral"),
        ("sst", "**Positively** bad", None), ("sst", "1. positive", None), ("rte", "!true", None),
        ("sst", "**It** is positive", None), ("sst", "not positive", None), ("sst", "** **", None),
        ("sst", "positive1", None),
    ],
)  # fmt: skip
def test_a_class_may_stand_in_mark_up(task, reply, answer):
    assert read_answer(task, reply) == answer


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("Option B", "B"), ("Option B.", "B"),
        ("\\boxed{C}", "C"), ("\\boxed{\\text{C}}", "C"), ("(B)", "B"), ("B.", "B"),
        ("**B**", "B"), ("**Option B**", "B"), ("**Answer: B**", "B"), ("The answer is option C.", "C"), ("_B_", "B"),
        ("The correct option is (D)", "D"), ("Answer: \\boxed{A}", "A"), ("$\\boxed{D}$", "D"),
        ("Choice A: a knot", "A"), ("*" * 9999, None),
        ("B is correct.", "B"), ("A is the right answer", "A"), ("A is a letter", None), ("Option A and B", None),
        ("Options A and B", None), ("Optional", None), ("Bad", None), ("Choices: A, B, C", None), ("optionb", None),
        ("The rope", None), ("A \\boxed rope", None),
    ],
)  # fmt: skip
def test_a_letter_may_stand_in_mark_up_or_behind_the_word_option(reply, letter):
    assert read_answer("mmlu", reply) == letter
