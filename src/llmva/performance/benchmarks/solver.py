"""The exact SVM solver against scikit-learn's, both label columns on one sample."""

from collections.abc import Iterator
from functools import partial

import numpy

from llmva.core.provenance import random_generator
from llmva.method.control_vectors import angle_degrees
from llmva.method.svm import SOLVERS, fit_svms
from llmva.performance.timing import Row, timed
from llmva.study.study import Study

# How the features' mean compares with their deviation, and whether two dimensions are massive.
FEATURES = {"mean 2 times the deviation": (2, False), "mean 10 times": (10, False), "two massive dimensions": (2, True)}

# Two dimensions this many times as large as the others, as residual streams have them.
MASSIVE, MASSIVE_DIMENSIONS = 100, 2


def solver_rows(study: Study, sizes: dict[str, int]) -> Iterator[Row]:
    """Compare the SVM solvers, on samples as large as one iteration's and as the whole training split."""
    runs, width = sizes["runs"], sizes["dimension"]
    goals = {len(study.pool["dataset"].unique()) * study.params.sample_per_dataset: ">=10"}
    goals[int((study.pool["split"] == "train").sum())] = ">=5"
    for samples, goal in goals.items():
        for name, (ratio, massive) in FEATURES.items():
            setting = f"n {samples}, d {width}, {name}, both labels, against LinearSVC"
            measured = benchmark_solver(samples, width, ratio=ratio, massive=massive, runs=runs)
            yield "solver, time", setting, measured["ratio"], goal, runs
            yield "solver, exact one converged", setting, measured["newton_converged"], ">=1", runs
            yield "solver, LinearSVC converged", setting, measured["liblinear_converged"], "", runs
            yield "solver, degrees apart", setting, measured["degrees_apart"], "", runs
            if measured["liblinear_converged"]:
                yield "solver, degrees apart where it converged", setting, measured["degrees_converged"], "<0.01", runs


def benchmark_solver(samples: int, dimension: int, *, ratio: float, massive: bool, runs: int) -> dict[str, float]:
    """Compare the exact solver with scikit-learn's, on a sample of its own in each run; see `draw_features`.

    Returns `ratio`, liblinear's time over Newton's, the median of the runs; `newton_converged` and
    `liblinear_converged`, shares of the fits; `degrees_apart`, the largest angle between their vectors; and
    `degrees_converged`, the largest where liblinear converged (nan if it never did).
    """
    ratios, apart = [], []
    converged = {solver: [] for solver in SOLVERS}
    for run in range(runs):
        features, labels = draw_features(samples, dimension, ratio, random_generator(0, "solver", run), massive)
        order = SOLVERS if run % 2 == 0 else SOLVERS[::-1]
        fits = {solver: timed(partial(fit_svms, features, labels, solver=solver)) for solver in order}
        ratios.append(fits["liblinear"][0] / fits["newton"][0])
        for solver, (_, fit) in fits.items():
            converged[solver].extend(fit.converged)
        apart.extend(map(angle_degrees, fits["newton"][1].weights, fits["liblinear"][1].weights))
    trusted = [angle for angle, well in zip(apart, converged["liblinear"], strict=True) if well]
    return {
        "ratio": float(numpy.median(ratios)),
        **{f"{solver}_converged": float(numpy.mean(converged[solver])) for solver in SOLVERS},
        "degrees_apart": float(max(apart)),
        "degrees_converged": float(max(trusted)) if trusted else float("nan"),
    }


def draw_features(
    samples: int, dimension: int, ratio: float, generator: numpy.random.Generator, massive: bool = False
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Draw features like a sublayer's outputs: a large common mean, and two planted directions with 5 % label noise.

    Returns
    -------
    features : (n, d) float32 array
        Deviations of size 1 in each dimension, a mean of length `ratio` times the root of d, about 10 in residual
        streams; if `massive`, two dimensions are far larger than the others.
    labels : (n, 2) array of -1, +1
        The planted ones, 5 % of them flipped.
    """
    truth = numpy.where(generator.random((samples, 2)) < 0.5, 1, -1)
    directions = generator.standard_normal((2, dimension))
    directions /= numpy.linalg.norm(directions, axis=1, keepdims=True)
    mean = generator.standard_normal(dimension)
    mean *= ratio * dimension**0.5 / numpy.linalg.norm(mean)
    features = generator.standard_normal((samples, dimension)) + 3 * truth @ directions + mean
    if massive:
        features[:, :MASSIVE_DIMENSIONS] *= MASSIVE
    flipped = generator.random((samples, 2)) < 0.05
    return features.astype(numpy.float32), numpy.where(flipped, -truth, truth)
