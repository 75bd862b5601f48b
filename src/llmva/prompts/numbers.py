"""The number that a reply to an exercise of arithmetic gives, in the ways that models write numbers."""

import re

# What a model of arithmetic writes before its answer.
MARKED = re.compile(r"(?:####|\\boxed\{)\s*([^\n}]*\d[^\n}]*)")
# LaTeX and typography in plain signs, in this order. No braces are left within a box, so that it ends where it should.
PLAIN_SIGNS = (
    (r"\u2212|(?<!\w)\u2013(?=[$\d.])", "-"),
    (r"\\(?:left|right|!)|\\(?=[$%])", ""),
    (r"\{,\}", ","),
    (r"\\[,;: ]", "\u202f"),
    (r"\\(?:text|mathrm|mathbf|textbf)\{([^{}]*)\}", r" \1 "),
    (r"\\approx\b|\u2248", "="),
    # A blank before a fraction keeps it apart from a whole number: 2\frac{1}{2} is 2 1/2.
    (r"\s*(-?)\\[dt]?frac\s*(?:\{(-?\d+)\}|(\d))\s*(?:\{(\d+)\}|(\d))", r" \1\2\3/\4\5"),
    (r"\^\{(-?\d+)\}", r"^\1"),
    (r"(?<=\d)\s?(?:\\times|\\cdot|[\u00d7*x])\s?10\s?\^\s?(-?\d{1,2})(?!\d)", r"e\1"),
    (r"(?<![\w.])10\^(-?\d{1,2})(?!\d)", r"1e\1"),
    # The exponent of a unit or a letter is no number of its own.
    (r"(?<=[A-Za-z])\^-?\d+", ""),
)
# What stands between thousands: a comma, an apostrophe or a narrow space; two groups or more may also have plain
# spaces or stops between them, of which one alone, as in "3 100" or "3.100", is something else. Where lakhs are
# counted, groups before the last one have two digits.
THOUSANDS = (
    r"\d{1,3}(?:(?:[,'\u2019\u00a0\u2009\u202f]\d{3})+|(?: \d{3}){2,}|(?:\.\d{3}){2,})(?!\d)"
    r"|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)"
)
MIXED = r"\d+ \d{1,2}/[1-9]\d?(?![\d.])"
POWER = r"(?:[eE][+-]?\d{1,2}(?!\w))?"
# A dash behind a digit is no sign, as in "12-14". A fraction is one number, also behind a whole one.
NUMBER = re.compile(
    rf"(?:(?<!\d)-[$\u20ac\u00a3]?)?"
    rf"(?:{MIXED}|(?:{THOUSANDS}|\d+)(?:/[1-9]\d*|(?:\.\d+)?{POWER})|(?<![\w.])\.\d+{POWER})"
)


def is_number(text: str) -> bool:
    """Tell whether a text is one number and nothing else."""
    return bool(NUMBER.fullmatch(text))


def read_number(reply: str) -> float | None:
    r"""Return the number of a reply, or None where there is none.

    It is the one behind `####` or in `\boxed{}`, where the reply marks it so: the first one there, or the first one
    behind the last equals sign. Else it is the last number of the reply.
    """
    for pattern, plain in PLAIN_SIGNS:
        reply = re.sub(pattern, plain, reply)
    if marked := MARKED.search(reply):
        return _parse(NUMBER.findall(_trim_marked(marked[1]))[0])
    numbers = NUMBER.findall(reply)
    return _parse(numbers[-1]) if numbers else None


def _trim_marked(text: str) -> str:
    """Return what is behind the last equals sign, if that has a number; one blank may stand in it, as in "12 345"."""
    behind = re.sub(r"\([^()]*=[^()]*\)", "", text).rpartition("=")[2]
    return re.sub(r"(?<=\d) (?=\d{3}(?!\d))", "\u202f", behind if NUMBER.search(behind) else text)


def _parse(text: str) -> float:
    sign = -1 if text.startswith("-") else 1
    text = text.lstrip("-$\u20ac\u00a3")
    if re.fullmatch(MIXED, text):
        whole, fraction = text.split(" ")
        return sign * (float(whole) + _parse(fraction))
    text = re.sub(r"[,'\u2019\s]", "", text)
    if text.count(".") > 1:
        text = text.replace(".", "")
    over, _, under = text.partition("/")
    return sign * float(over) / float(under or 1)
