"""The edit's algebra, its log, and a model under edits: Eq. 7 holds, replay is exact, and back is bit for bit."""

import textwrap

import numpy
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmva.core.errors import InputError
from llmva.edits import log as edit_log
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog, SublayerEdit
from llmva.edits.writers import InPlace
from llmva.method.edit import projection_scale, solve_edit

few_examples = settings(max_examples=30, deadline=None, derandomize=True)
D_OUT, D_IN = 12, 20


def unit_vectors(seed: int, count: int = 2, length: int = D_OUT) -> numpy.ndarray:
    vectors = numpy.random.default_rng(seed).standard_normal((count, length))
    return vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)


def linear(seed: int = 0, *, bias: bool = True, dtype=torch.float32, shape=(D_IN, D_OUT)) -> torch.nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Linear(*shape, bias=bias, dtype=dtype)


def two_modules(**options) -> dict[str, torch.nn.Linear]:
    return {"attention.00": linear(1, **options), "mlp.00": linear(2, **options)}


def edit_of(edited: EditedModel, sublayer: str, seed: int, scale: float = 0.7) -> SublayerEdit:
    answer, benign = unit_vectors(seed)
    weight, bias = edited.weight(sublayer), edited.bias(sublayer)
    return solve_edit(weight, bias, sublayer=sublayer, answer=answer, benign=benign, scale=scale)


def run_iterations(edited: EditedModel, iterations: int) -> EditLog:
    """Edit as the loop does: each iteration from the weights that the ones before have left."""
    log = EditLog()
    for iteration in range(iterations):
        log = log.appended(edit_of(edited, name, 10 * iteration + len(name)) for name in ("attention.00", "mlp.00"))
        edited.apply(log)
    return log


def bits(module: torch.nn.Linear) -> list[bytes]:
    parameters = [parameter for parameter in (module.weight, module.bias) if parameter is not None]
    return [parameter.detach().flatten().view(torch.uint8).numpy().tobytes() for parameter in parameters]


@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 20), bias=st.booleans(), overlap=st.floats(-0.9, 0.9))
@few_examples
def test_the_answer_projection_becomes_the_scaled_benign_projection(seed, scale, bias, overlap):
    module = linear(seed, bias=bias)
    answer, benign = unit_vectors(seed)
    benign = benign - (benign @ answer - overlap) * answer
    benign /= numpy.linalg.norm(benign)
    inputs = torch.randn(50, D_IN, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        before = module(inputs).double().numpy()
    edited = EditedModel({"mlp.00": module})
    step = solve_edit(module.weight, module.bias, sublayer="mlp.00", answer=answer, benign=benign, scale=scale)
    edited.apply(EditLog().appended([step]))
    with torch.no_grad():
        after = module(inputs).double().numpy()
    numpy.testing.assert_allclose(after @ answer, scale * (before @ benign), atol=1e-5 * max(1, scale))
    # Whatever is orthogonal to v_a stays as it was: the smallest change that does it.
    project = numpy.eye(D_OUT) - numpy.outer(answer, answer)
    numpy.testing.assert_allclose(after @ project, before @ project, atol=1e-5 * max(1, scale))


def test_known_safety_and_answer_geometry_is_aligned_in_one_step():
    draw = numpy.random.default_rng(3)
    answer, benign, cue = numpy.linalg.qr(draw.standard_normal((D_OUT, 3)))[0].T
    # Input 0 carries safety, input 1 a cue that decides on answering and has nothing to do with safety.
    weight = numpy.zeros((D_OUT, D_IN))
    weight[:, 0], weight[:, 1], weight[:, 2] = 2 * benign, 3 * answer, cue
    module = linear(bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weight))
    inputs = draw.choice([-1.0, 1.0], (80, D_IN)) * draw.uniform(0.5, 1.5, (80, D_IN))
    outputs = inputs @ weight.T
    assert abs(numpy.corrcoef(outputs @ answer, outputs @ benign)[0, 1]) < 0.3
    scale = projection_scale(outputs, answer, benign)
    assert scale == pytest.approx(1.5, rel=0.1)
    edited = EditedModel({"mlp.00": module})
    step = solve_edit(module.weight, None, sublayer="mlp.00", answer=answer, benign=benign, scale=scale)
    edited.apply(EditLog().appended([step]))
    with torch.no_grad():
        aligned = module(torch.from_numpy(inputs).float()).numpy()
    numpy.testing.assert_array_equal(numpy.sign(aligned @ answer), numpy.sign(inputs[:, 0]))
    assert numpy.corrcoef(aligned @ answer, outputs @ benign)[0, 1] == pytest.approx(1, abs=1e-6)
    assert numpy.std(aligned @ answer) == pytest.approx(numpy.std(outputs @ answer), rel=1e-4)


def test_vectors_act_on_the_output_side_of_the_weight():
    module = linear(4)
    answer, benign = unit_vectors(4)
    edit = solve_edit(module.weight, module.bias, sublayer="mlp.00", answer=answer, benign=benign, scale=2.0)
    step = 2.0 * benign - answer
    weight, bias = module.weight.detach().double().numpy(), module.bias.detach().double().numpy()
    assert edit.output_vector.shape == (D_OUT,)
    assert edit.input_vector.shape == (D_IN,)
    assert {edit.output_vector.dtype, edit.input_vector.dtype} == {numpy.dtype("float32")}
    numpy.testing.assert_allclose(edit.input_vector, weight.T @ step, atol=1e-6)
    assert edit.bias_step == pytest.approx(step @ bias, abs=1e-6)
    square = linear(5, shape=(D_OUT, D_OUT))
    edited = EditedModel({"mlp.00": square})
    start = square.weight.detach().double().numpy()
    edited.apply(EditLog().appended([edit_of(edited, "mlp.00", seed=4, scale=2.0)]))
    numpy.testing.assert_allclose(square.weight.detach(), start + numpy.outer(answer, step @ start), atol=1e-6)


def test_equal_vectors_at_scale_one_change_nothing():
    module = linear(6)
    before = bits(module)
    vector = unit_vectors(6)[0]
    step = solve_edit(module.weight, module.bias, sublayer="mlp.00", answer=vector, benign=vector, scale=1.0)
    EditedModel({"mlp.00": module}).apply(EditLog().appended([step]))
    assert bits(module) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_composed_edits_are_the_sequential_dense_updates_of_low_rank(dtype):
    iterations = 5
    modules = two_modules(dtype=dtype)
    originals = {name: module.weight.detach().double().numpy().copy() for name, module in modules.items()}
    with EditedModel(modules) as edited:
        run_iterations(edited, iterations)
        for name, module in modules.items():
            weight, bias = originals[name].copy(), linear(1 if name == "attention.00" else 2, dtype=dtype).bias
            bias = bias.detach().double().numpy()
            for iteration in range(iterations):
                answer, benign = unit_vectors(10 * iteration + len(name))
                step = 0.7 * benign - answer
                weight, bias = weight + numpy.outer(answer, step @ weight), bias + answer * (step @ bias)
            numpy.testing.assert_allclose(module.weight.detach(), weight, atol=1e-5)
            numpy.testing.assert_allclose(module.bias.detach(), bias, atol=1e-5)
            change = module.weight.detach().double().numpy() - originals[name]
            assert numpy.linalg.matrix_rank(change, tol=1e-4) == iterations
            numpy.testing.assert_array_equal(edited.weight(name), module.weight.detach())
            numpy.testing.assert_array_equal(edited.bias(name), module.bias.detach())


def test_low_precision_is_cast_once_from_the_untouched_weight():
    precise, coarse = two_modules(), two_modules()
    with torch.no_grad():
        for module in [*precise.values(), *coarse.values()]:
            for parameter in module.parameters():
                parameter.copy_(parameter.bfloat16())
    coarse = {name: module.bfloat16() for name, module in coarse.items()}
    edited = EditedModel(coarse)
    log = run_iterations(edited, 10)
    EditedModel(precise).apply(log)
    for name in coarse:
        assert coarse[name].weight.dtype == torch.bfloat16
        assert edited.weight(name).dtype == torch.float32
        assert torch.equal(coarse[name].weight, precise[name].weight.bfloat16())
        assert torch.equal(coarse[name].bias, precise[name].bias.bfloat16())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
def test_reverting_restores_every_bit(dtype, bias):
    modules = two_modules(dtype=dtype, bias=bias)
    before = {name: bits(module) for name, module in modules.items()}
    pointers = [module.weight.data_ptr() for module in modules.values()]
    with EditedModel(modules) as edited:
        log = run_iterations(edited, 3)
        assert all(bits(module) != before[name] for name, module in modules.items())
        edited.revert()
        assert {name: bits(module) for name, module in modules.items()} == before
        edited.apply(log)
        assert all(bits(module) != before[name] for name, module in modules.items())
    assert {name: bits(module) for name, module in modules.items()} == before
    assert [module.weight.data_ptr() for module in modules.values()] == pointers


def test_an_error_inside_the_context_reverts_too():
    modules = two_modules()
    before = {name: bits(module) for name, module in modules.items()}
    with pytest.raises(RuntimeError, match="interrupted"), EditedModel(modules) as edited:
        run_iterations(edited, 1)
        raise RuntimeError("interrupted")
    assert {name: bits(module) for name, module in modules.items()} == before


def test_any_log_may_follow_any_other():
    modules = two_modules()
    edited = EditedModel(modules)
    log = run_iterations(edited, 3)
    states = []
    for iteration in (0, 1, 2, 3, 1, 3, 0, 2):
        edited.apply(log.at_iteration(iteration))
        states.append((iteration, [bits(module) for module in modules.values()]))
    by_iteration = dict(states)
    assert all(state == by_iteration[iteration] for iteration, state in states)
    assert len({str(state) for state in by_iteration.values()}) == 4


def test_a_sublayer_that_leaves_the_log_is_restored():
    modules = two_modules()
    before = bits(modules["mlp.00"])
    edited = EditedModel(modules)
    edited.apply(EditLog().appended([edit_of(edited, "mlp.00", 1)]))
    edited.apply(EditLog().appended([edit_of(edited, "attention.00", 2)]))
    assert bits(modules["mlp.00"]) == before


def test_returned_weights_are_copies():
    modules = two_modules()
    before = bits(modules["mlp.00"])
    edited = EditedModel(modules)
    edited.weight("mlp.00").zero_()
    edited.bias("mlp.00").zero_()
    edited.apply(EditLog().appended([edit_of(edited, "mlp.00", 1)]))
    edited.revert()
    assert bits(modules["mlp.00"]) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_log_replays_to_the_same_bits(tmp_path, dtype):
    modules, fresh = two_modules(dtype=dtype), two_modules(dtype=dtype)
    log = run_iterations(EditedModel(modules), 4).appended([])
    log.save(tmp_path / "log.safetensors", {"model": "tiny", "seed": 3})
    loaded = EditLog.load(tmp_path / "log.safetensors")
    EditedModel(fresh).apply(loaded)
    assert [bits(module) for module in fresh.values()] == [bits(module) for module in modules.values()]
    assert len(loaded) == 5
    assert loaded.iterations[4] == ()
    assert loaded.iterations[2][1].scale == log.iterations[2][1].scale
    assert loaded.iterations[2][1].bias_step == log.iterations[2][1].bias_step
    numpy.testing.assert_array_equal(loaded.iterations[2][1].benign_vector, log.iterations[2][1].benign_vector)
    with safetensors.safe_open(tmp_path / "log.safetensors", framework="numpy") as file:
        metadata = file.metadata()
    assert metadata == {
        "format": "llmva edit log",
        "format_version": "1",
        "iterations": "5",
        "model": "tiny",
        "seed": "3",
    }


@pytest.mark.parametrize("bias", [True, False])
def test_the_documented_lines_replay_without_the_package(tmp_path, bias):
    modules, fresh = two_modules(bias=bias), two_modules(bias=bias)
    path = tmp_path / "log.safetensors"
    run_iterations(EditedModel(modules), 4).save(path, {})
    lines = [line for line in edit_log.__doc__.splitlines() if line.startswith("    ")]
    exec(
        textwrap.dedent("\n".join(lines)), {"safetensors": safetensors, "torch": torch, "modules": fresh, "path": path}
    )
    for name, module in modules.items():
        torch.testing.assert_close(fresh[name].weight, module.weight, atol=1e-5, rtol=0)
        if bias:
            torch.testing.assert_close(fresh[name].bias, module.bias, atol=1e-5, rtol=0)


def test_layout_and_bytes_of_the_log_are_fixed(tmp_path):
    log = run_iterations(EditedModel(two_modules()), 2)
    facts = {"model": "tiny", "über": "größe", "a": 1, "z": 2, "m": 3}
    for name, metadata in {"first": facts, "second": dict(reversed(facts.items()))}.items():
        log.save(tmp_path / name, metadata)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    with safetensors.safe_open(tmp_path / "first", framework="numpy") as file:
        assert file.metadata()["über"] == "größe"
    tensors = safetensors.numpy.load_file(tmp_path / "first")
    parts = ["answer_vector", "benign_vector", "bias_step", "input_vector", "output_vector", "scale"]
    names = [f"iteration.00{t}/{name}/{part}" for t in (0, 1) for name in ("attention.00", "mlp.00") for part in parts]
    assert sorted(tensors) == names
    assert tensors["iteration.001/mlp.00/input_vector"].shape == (D_IN,)


def test_an_empty_log_is_saved_too(tmp_path):
    EditLog().save(tmp_path / "log", {})
    assert len(EditLog.load(tmp_path / "log")) == 0


def corrupt(path, change) -> None:
    with safetensors.safe_open(path, framework="numpy") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    change(tensors, metadata)
    path.write_bytes(safetensors.numpy.save(tensors, metadata))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, torch.OutOfMemoryError])
def test_edits_that_are_stopped_midway_leave_the_original(monkeypatch, stop):
    modules = two_modules()
    before = {name: module.weight.clone() for name, module in modules.items()}
    log = run_iterations(EditedModel(two_modules()), 2)
    set_edits = InPlace.set
    last = list(modules.values())[-1]

    def fail(writer, edits):
        if edits and writer._module is last:
            raise stop
        set_edits(writer, edits)

    with pytest.raises(stop), EditedModel(modules) as edited:
        monkeypatch.setattr(InPlace, "set", fail)
        edited.apply(log)
    assert all(torch.equal(module.weight, before[name]) for name, module in modules.items())
    assert len(edited.log) == 0


def replace_part(path, part, value) -> None:
    corrupt(path, lambda tensors, _: tensors.update({f"iteration.000/mlp.00/{part}": numpy.asarray(value)}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "not a readable safetensors file"),
        (lambda path: path.write_bytes(b"not safetensors at all"), "not a readable safetensors file"),
        (lambda path: path.write_bytes(b""), "not a readable safetensors file"),
        (lambda path: path.unlink(), "no such edit log"),
        (lambda path: (path.unlink(), path.mkdir()), "not a readable safetensors file"),
        (lambda path: corrupt(path, lambda _, metadata: metadata.clear()), "not an edit log of version 1"),
        (lambda path: corrupt(path, lambda _, metadata: metadata.update(format_version="9")), "not an edit log"),
        (lambda path: corrupt(path, lambda _, metadata: metadata.update(iterations="1")), "parts missing"),
        (lambda path: corrupt(path, lambda _, metadata: metadata.update(iterations="many")), "parts missing"),
        (lambda path: corrupt(path, lambda tensors, _: tensors.pop("iteration.000/mlp.00/scale")), "parts missing"),
        (lambda path: corrupt(path, lambda tensors, _: tensors.update(weight=numpy.ones(2))), "parts missing"),
        (lambda path: corrupt(path, lambda _, metadata: metadata.update(iterations="100000000")), "parts missing"),
        (lambda path: replace_part(path, "output_vector", numpy.ones((2, 3), "float32")), "no pair of vectors"),
        (lambda path: replace_part(path, "output_vector", numpy.ones(9, "float32")), "no pair of vectors"),
        (lambda path: replace_part(path, "input_vector", numpy.ones(4, "int32")), "no pair of vectors"),
        (lambda path: replace_part(path, "input_vector", numpy.ones(0, "float32")), "no pair of vectors"),
        (lambda path: replace_part(path, "input_vector", numpy.float32(1)), "no pair of vectors"),
        (lambda path: replace_part(path, "scale", numpy.array(2)), "no pair of vectors"),
        (
            lambda path: corrupt(path, lambda tensors, _: tensors["iteration.000/mlp.00/input_vector"].fill(numpy.nan)),
            "NaN or infinite",
        ),
    ],
)
def test_damaged_and_foreign_files_are_named(tmp_path, damage, message):
    path = tmp_path / "log.safetensors"
    run_iterations(EditedModel(two_modules()), 2).save(path, {})
    damage(path)
    with pytest.raises(InputError, match=message) as error:
        EditLog.load(path)
    assert str(error.value).startswith(str(path))


def test_a_log_is_its_iterations():
    edited = EditedModel(two_modules())
    log = run_iterations(edited, 3)
    assert len(log) == 3
    assert log.sublayers == ("attention.00", "mlp.00")
    assert log.edits_of("mlp.00") == tuple(edits[1] for edits in log.iterations)
    assert log.edits_of("mlp.09") == ()
    assert log.at_iteration(2).iterations == log.iterations[:2]
    assert log.at_iteration(numpy.int64(2)).iterations == log.iterations[:2]
    for iteration in (-1, 4, 1.0, None, True, "1"):
        with pytest.raises(InputError, match=f"^iteration: {iteration!r} is not in this log; choose 0 to 3"):
            log.at_iteration(iteration)
    with pytest.raises(ValueError, match="twice"):
        log.appended([log.iterations[0][0]] * 2)


def test_a_log_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "log", "", None, "x" * 500):
        with pytest.raises(InputError):
            EditLog().save(place, {})


def test_scale_is_the_ratio_of_sample_deviations():
    features = numpy.random.default_rng(7).standard_normal((9, D_OUT)) * 100 + 50
    answer, benign = unit_vectors(7)
    expected = numpy.std(features @ answer, ddof=1) / numpy.std(features @ benign, ddof=1)
    assert projection_scale(features.astype(numpy.float32), answer, benign) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("flat", [0, 1])
def test_a_vanishing_deviation_has_no_scale(flat):
    draw = numpy.random.default_rng(8)
    features = draw.standard_normal((50, 2)).astype(numpy.float32)
    features[:, flat] = 1000.1
    answer, benign = numpy.eye(2)
    assert numpy.isnan(projection_scale(features, answer, benign))
    features[:, flat] += draw.standard_normal(50)
    assert numpy.isfinite(projection_scale(features, answer, benign))


def test_one_row_no_vector_and_infinite_features_have_no_scale():
    features, (answer, benign) = numpy.random.default_rng(9).standard_normal((6, D_OUT)), unit_vectors(9)
    assert numpy.isnan(projection_scale(features[:1], answer, benign))
    assert numpy.isnan(projection_scale(features, answer, 0 * benign))
    features[0, 0] = numpy.inf
    assert numpy.isnan(projection_scale(features, answer, benign))


@pytest.mark.parametrize(
    "change", [{"scale": float("nan")}, {"answer": numpy.zeros(D_OUT)}, {"benign": numpy.ones(D_OUT)}]
)
def test_no_edit_is_solved_without_vectors_or_scale(change):
    answer, benign = unit_vectors(10)
    options = {"sublayer": "mlp.00", "answer": answer, "benign": benign, "scale": 1.0} | change
    with pytest.raises(ValueError, match=r"^mlp\.00: the (scale|answer|benign)"):
        solve_edit(linear().weight, None, **options)


def test_a_log_of_another_model_is_refused_and_changes_nothing():
    modules = two_modules()
    log = run_iterations(EditedModel(two_modules()), 1)
    before = [bits(module) for module in modules.values()]
    with pytest.raises(InputError, match=r"no sublayer mlp\.00"):
        EditedModel({"attention.00": modules["attention.00"]}).apply(log)
    with pytest.raises(InputError, match=r"another mlp\.00"):
        EditedModel({"attention.00": modules["attention.00"], "mlp.00": linear(shape=(D_IN, D_IN))}).apply(log)
    without_bias = two_modules(bias=False)
    with pytest.raises(InputError, match=r"another attention\.00"):
        EditedModel(without_bias).apply(log)
    assert [bits(module) for module in modules.values()] == before


class PackedParameter(torch.nn.Parameter):
    """Stands for a quantised or sharded weight."""


def shared() -> dict[str, torch.nn.Module]:
    modules = two_modules()
    modules["mlp.00"].weight = modules["attention.00"].weight
    return modules


def packed() -> torch.nn.Linear:
    module = linear()
    module.weight = PackedParameter(module.weight.data)
    return module


def integer() -> torch.nn.Linear:
    module = linear()
    module.weight = torch.nn.Parameter(module.weight.data.to(torch.int8), requires_grad=False)
    return module


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (shared(), "mlp.00: shares its weight with attention.00"),
        ({"mlp.00": torch.nn.LayerNorm(3)}, "mlp.00: is a LayerNorm"),
        ({"mlp.00": integer()}, "mlp.00: its weight is quantised"),
        ({"mlp.00": packed()}, "mlp.00: its weight is quantised"),
        ({"mlp.00": linear().to(torch.float8_e4m3fn)}, "mlp.00: its weight is quantised"),
        ({"mlp.00": torch.nn.utils.parametrizations.weight_norm(linear())}, "mlp.00: its weight is quantised, sharded"),
        ({"mlp.00": torch.nn.Linear(2, 2, device="meta")}, "mlp.00: its weight is not in memory"),
    ],
)
def test_modules_that_cannot_be_edited_in_place_are_refused(modules, message):
    with pytest.raises(InputError, match=message):
        EditedModel(modules)
