"""How far two judges of the same replies agree."""

import pandas
from sklearn.metrics import cohen_kappa_score


def kappa(one: pandas.Series, other: pandas.Series) -> float:
    """Return Cohen's kappa of two judges' verdicts; nan where both give one and the same verdict throughout."""
    return float(cohen_kappa_score(one, other)) if len(set(one) | set(other)) > 1 else float("nan")
