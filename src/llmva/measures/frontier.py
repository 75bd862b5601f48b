"""Settings that trade one failure for the other: which of them no other beats, and the area that they leave behind."""

import numpy


def on_front(points: numpy.ndarray) -> numpy.ndarray:
    """Tell which points no other point beats: as low in both coordinates, and lower in one.

    Parameters
    ----------
    points : (n, 2) float array
        Both failures, as shares.

    Returns
    -------
    (n,) bool array
        Of equal points the first one alone is kept.
    """
    points = numpy.asarray(points, dtype=float)
    order = numpy.lexsort((numpy.arange(len(points)), points[:, 1], points[:, 0]))
    kept, lowest = numpy.zeros(len(points), dtype=bool), numpy.inf
    for place in order:
        # In the order of the first failure, the second one must fall.
        kept[place] = points[place, 1] < lowest
        lowest = min(lowest, points[place, 1])
    return kept


def hypervolume(points: numpy.ndarray) -> float:
    """Return the share of the unit square that at least one point beats: 1 for a point at (0, 0), 0 for (0, 1).

    To answer everything, or to refuse everything, beats nothing.

    Parameters
    ----------
    points : (n, 2) float array
        Both failures, as shares.
    """
    front = numpy.asarray(points, dtype=float)[on_front(points)]
    front = front[front[:, 0].argsort()]
    # Each point's strip reaches to the next one, the last one's to 1.
    ends = numpy.append(front[1:, 0], 1.0)
    return float(((ends - front[:, 0]) * (1 - front[:, 1])).sum())
