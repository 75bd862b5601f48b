"""Digests and seeds: what a key or a draw depends on, and what it does not."""

import hashlib
import itertools

import numpy

from llmva.core import provenance
from llmva.core.provenance import (
    RECORDED_PACKAGES,
    code_digest,
    digest,
    environment,
    file_digest,
    random_generator,
    seed_for,
)


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": {"c": 2, "d": [3]}}) == digest({"b": {"d": [3], "c": 2}, "a": 1})


def test_a_digest_depends_on_values_types_and_the_order_of_lists():
    values = [{"a": 1}, {"a": 2}, {"a": "1"}, {"a": 1.5}, {"a": None}, {"b": 1}, {"a": [1, 2]}, {"a": [2, 1]}]
    assert len({digest(value) for value in values}) == len(values)


def test_a_digest_is_the_same_in_every_version():
    # It names folders on disk: another value would recompute every stage of every user.
    assert digest({"b": [1, "é"], "a": 0.5}) == hashlib.sha256('{"a":0.5,"b":[1,"é"]}'.encode()).hexdigest()


def test_a_file_digest_is_that_of_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert file_digest(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_code_s_digest_changes_with_any_module(tmp_path, monkeypatch):
    for name in ("provenance.py", "steering/base.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    before = code_digest()
    assert code_digest() == before
    (tmp_path / "steering" / "base.py").write_text("x = 2\n")
    assert code_digest() != before


def test_seeds_differ_by_seed_and_by_purpose():
    purposes = [("sample", 0), ("sample", 1), ("sample", 0, "nq"), ("splits", "benign"), ("pool", "nq", "train"), ()]
    seeds = [seed_for(seed, *purpose) for seed, purpose in itertools.product(range(20), purposes)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_is_the_same_in_every_version_and_process():
    # Published results hang on these values.
    assert seed_for(0, "sample", 3, "nq") == 3891752556070432517
    assert seed_for(1) == 3874038210105081456


def test_draws_for_different_purposes_are_uncorrelated_and_leave_the_global_state_alone():
    before = numpy.random.get_state()[1].copy()
    first, second = (random_generator(0, purpose).standard_normal(20_000) for purpose in ("null", "pool"))
    # The standard error is 0.007.
    assert abs(numpy.corrcoef(first, second)[0, 1]) < 0.04
    assert numpy.array_equal(first, random_generator(0, "null").standard_normal(20_000))
    assert numpy.array_equal(before, numpy.random.get_state()[1])


def test_a_draw_does_not_depend_on_the_draws_before_it():
    alone = random_generator(0, "b").integers(1000, size=5)
    random_generator(0, "a").integers(1000, size=99)
    assert numpy.array_equal(alone, random_generator(0, "b").integers(1000, size=5))


def test_a_manifest_names_versions_and_no_place_of_this_machine():
    recorded = environment()
    assert set(recorded) == {*RECORDED_PACKAGES, "python", "system", "machine", "commit"}
    assert recorded["numpy"] == numpy.__version__
    assert not any("/" in value for value in recorded.values())
