"""A section that hides no miss, candidates that are named when they fail, and weights that both libraries share."""

import itertools
import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.markers import read_table, replace_tables, table_names, with_table
from benchmarks.model import accelerator, candidate, forecast, parity, peer, published, turns
from benchmarks.model.case import Case, Kernel, Library, Round, Started
from benchmarks.model.page import NO_GPU, bounds, figure, gpu_tables, tables
from benchmarks.model.run import training_cases
from benchmarks.model.shapes import SHAPES
from benchmarks.model.turns import Comparison, Measured, ModelResults, ModelsOnGpu
from benchmarks.report import DOCS, Bound, save_figures
from sluice.model.architecture.kernels import KERNELS
from sluice.model.architecture.transformer import Transformer


def test_what_is_missed_is_named():
    results = _results(ours_s=0.9)
    missed = [bound.name for bound in bounds(results) if not bound.is_met]
    assert len(missed) == len(bounds(results)) == 6
    table = tables(results)["speed-bounds"]
    assert all(name in table for name in missed)
    assert table.count("**not met**") == 6 and "0 of 6 are met." in table
    assert "**not" not in tables(_results(ours_s=0.4))["speed-bounds"]


def test_a_figure_that_is_no_number_is_not_met():
    for at_least in (True, False):
        bound = Bound("x", math.nan, 1.0, at_least=at_least)
        assert not bound.is_met
        assert (bound.shown, bound.verdict) == ("none", "**not measured**")


def test_figures_are_rounded_against_us():
    assert "| 1.99 | ≥ 2 | **not met** |" in tables(_results(ours_s=1 / 1.999))["speed-bounds"]
    assert Bound("x", 0.0501, 0.05, at_least=False, digits=2).shown == "0.06"
    assert Bound("x", 2.01e-5, 1e-5, at_least=False).shown == "2.1e-05"


def test_nothing_compared_is_no_pass():
    with pytest.raises(ValueError, match="nothing was compared"):
        bounds(ModelResults(machine="a machine", threads=2, rounds=1, libraries=""))


def test_different_tokens_are_told():
    results = _results(ours_s=0.4)
    assert "| tokens generated in fp32 | the same |" in tables(results)["speed-conditions"]
    name = "sluice, fp32, eager"
    wrong = results.generation[0].candidates[name]
    results.generation[0].candidates[name] = wrong.model_copy(
        update={"started": wrong.started.model_copy(update={"check": [9.0]})}
    )
    assert "| tokens generated in fp32 | **different at 5M, 256 tokens** |" in tables(results)["speed-conditions"]


def test_the_page_has_a_place_for_every_table():
    names, written = table_names((DOCS / "model.md").read_text(encoding="utf-8")), tables(_results(ours_s=0.4))
    assert sorted(names) == sorted([*written, "parity-conditions", "parity", "published", "slots"])
    heads = {name: table.splitlines()[0] for name, table in written.items()}
    assert {name: read_table(DOCS / "model.md", name).splitlines()[0] for name in written} == heads
    other = {**parity.tables([]), **published.published_tables([]), **forecast.tables([], 3)}
    pages = {name: DOCS / ("plan.md" if name.startswith("forecast") else "model.md") for name in other}
    heads = {name: table.splitlines()[0] for name, table in other.items()}
    assert {name: read_table(page, name).splitlines()[0] for name, page in pages.items()} == heads


def test_equal_results_draw_equal_pictures(tmp_path: Path):
    drawn = []
    for _ in range(2):
        save_figures(tmp_path, {"model-speed.svg": figure(_results(ours_s=0.4))})
        drawn.append((tmp_path / "model-speed.svg").read_bytes())
    assert drawn[0] == drawn[1]
    assert drawn[0].startswith(b"<?xml")


def test_without_an_accelerator_the_section_says_so():
    assert tables(_results(ours_s=0.4))["gpu-speed"] == NO_GPU


def test_an_accelerator_is_held_to_its_data_sheet_and_what_could_not_run_is_told():
    cases = accelerator.cases("350M", 2048)
    assert len(cases) == 2 * (len(accelerator.KERNELS) + 1)
    measured = {name: _measured(case, 1.0, [6.0]) for name, case in cases.items()}
    text = gpu_tables(
        ModelsOnGpu(
            device="NVIDIA H100 80GB HBM3",
            peak_flops=accelerator.dense_bf16_peak("NVIDIA H100 80GB HBM3"),
            matmul_flops=700e12,
            comparisons=[Comparison(shape="350M", sequence=2048, candidates=measured)],
            refused={"350M, 4096 tokens: sluice, bf16, eager, flash": "flash-attn is not installed"},
        )
    )
    assert "989 TFLOP/s" in text
    assert text.count("| 350M |") == len(cases)
    assert "flash-attn is not installed" in text


@pytest.mark.parametrize(
    ("name", "tflops"), [("NVIDIA H100 PCIe", 756), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H200", 989)]
)
def test_the_longer_name_of_a_device_goes_first(name: str, tflops: int):
    assert accelerator.dense_bf16_peak(name) == tflops * 1e12


def test_an_unlisted_device_has_no_peak():
    assert accelerator.dense_bf16_peak("Some GPU") is None


@given(before=st.text("ab\n", max_size=20), after=st.text("ab\n", max_size=20), text=st.text("cd", min_size=1))
def test_a_table_replaces_itself_alone(before: str, after: str, text: str):
    other = "<!-- table:other -->\nold\n<!-- /table -->"
    page = f"{before}<!-- table:speed -->\nold\n<!-- /table -->{after}{other}"
    new = with_table(page, "speed", text)
    assert new == f"{before}<!-- table:speed -->\n{text}\n<!-- /table -->{after}{other}"
    assert with_table(new, "speed", text) == new


@pytest.mark.parametrize("page", ["", "<!-- table:speed -->", "<!-- table:speed -->\n<!-- /table -->\n" * 2])
def test_a_lost_or_doubled_marker_is_refused(page: str, tmp_path: Path):
    path = tmp_path / "page.md"
    path.write_text(page)
    with pytest.raises(ValueError, match="tables speed: put <!-- table:speed -->"):
        replace_tables(path, {"speed": "text"})
    assert path.read_text() == page


def test_a_table_is_read_back(tmp_path: Path):
    path = tmp_path / "page.md"
    path.write_text("<!-- table:speed -->\n<!-- /table -->")
    replace_tables(path, {"speed": "text"})
    assert read_table(path, "speed") == "text\n" and read_table(path, "other") == ""


@pytest.mark.parametrize("name", list(SHAPES))
def test_a_shape_counts_the_parameters_of_the_model(name: str):
    shape = SHAPES[name]
    with torch.device("meta"):
        model = Transformer(shape.config(256))
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())


def test_flops_are_six_a_weight_and_the_visible_half_of_attention():
    shape = SHAPES["5M"]
    seen = sum(range(1, 257)) / 256
    attention = 3 * shape.layers * 2 * (2 * shape.hidden_size * seen)
    assert shape.training_flops(256) == 6 * shape.matrix_weights + attention


def test_every_setting_has_its_peer():
    cases = training_cases("5M", 256, 1, "weights.safetensors")
    settings = {case.setting for case in cases.values()}
    assert settings == {"fp32, eager", "bf16, eager", "bf16, compiled"}
    assert set(cases) == {f"{library}, {each}" for library in ("sluice", "transformers") for each in settings}
    eager = training_cases("5M", 1024, 1, "weights.safetensors", compiled=False)
    assert eager.keys() == {name for name in cases if not name.endswith("compiled")}


def test_the_kernels_of_a_case_are_those_of_the_model():
    assert get_args(Kernel) == KERNELS


def test_both_libraries_compute_the_same_from_one_file(tmp_path: Path):
    cases = [Case(work="train", library=each, shape="smoke", sequence=32) for each in get_args(Library)]
    peer.write_weights(cases[1], str(tmp_path / "weights.safetensors"))
    losses = [
        candidate._model(each.model_copy(update={"weights": str(tmp_path / "weights.safetensors")}))[0].check[0]
        for each in cases
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_candidate_trains_and_a_broken_one_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(candidate, "reset_peak", lambda device: None)
    started, work = candidate._model(Case(work="train", shape="smoke", sequence=32))
    seconds, units = work()
    assert seconds > 0
    assert units == SHAPES["smoke"].step_tokens
    assert started.check[0] == pytest.approx(math.log(SHAPES["smoke"].vocab_size), rel=0.05)
    sent: list[bytes] = []
    broken = Case(work="train", shape="smoke", weights="/no/such/file")
    candidate.serve(_Pipe(sent), broken.model_dump_json())
    with pytest.raises(RuntimeError, match=r"candidate broken: .*no/such/file"):
        turns._answer("broken", _Pipe(sent), 1.0)


class _Pipe:
    """Both ends of a pipe without a process."""

    def __init__(self, messages: list[bytes]) -> None:
        self.messages = messages

    def send_bytes(self, message: bytes) -> None:
        self.messages.append(message)

    def recv_bytes(self) -> bytes:
        if not self.messages:
            raise EOFError
        return self.messages.pop(0)

    def poll(self, bound_s: float) -> bool:
        return bool(self.messages)


def test_one_that_dies_or_is_silent_is_named():
    class Dead(_Pipe):
        def poll(self, bound_s: float) -> bool:
            return True

    with pytest.raises(RuntimeError, match="candidate ours died"):
        turns._answer("ours", Dead([]), 1.0)
    with pytest.raises(RuntimeError, match="candidate ours did not answer within 1 s"):
        turns._answer("ours", _Pipe([]), 1.0)


def _results(ours_s: float) -> ModelResults:
    training = training_cases("5M", 256, 2, "weights")
    generation = {
        f"{library}, fp32, eager": Case(work="generate", library=library, shape="5M")
        for library in ("sluice", "transformers")
    }
    return ModelResults(
        machine="a machine",
        threads=2,
        rounds=1,
        libraries="torch",
        matmul={"fp32": 150e9, "bf16": 300e9},
        training=[_comparison(training, ours_s)],
        generation=[_comparison(generation, ours_s)],
    )


def _comparison(cases: dict[str, Case], ours_s: float) -> Comparison:
    candidates = {
        name: _measured(case, ours_s if case.library == "sluice" else 1.0, [8.5]) for name, case in cases.items()
    }
    return Comparison(shape="5M", sequence=256, candidates=candidates)


def _measured(case: Case, seconds: float, check: list[float]) -> Measured:
    started = Started(parameters=1, import_bytes=1, warm_up_s=1.0, check=check)
    return Measured(case=case, started=started, rounds=[Round(seconds=seconds, units=1000, peak_bytes=10**9)])


def test_titles_and_labels_of_the_picture_neither_overlap_nor_leave_it():
    drawn = figure(_results(ours_s=0.4))
    drawn.draw_without_rendering()
    whole = drawn.bbox
    texts = [text for axes in drawn.axes if axes.get_visible() for text in (axes.title, *axes.get_yticklabels())]
    assert drawn._supxlabel is not None
    boxes = [text.get_window_extent() for text in [*texts, drawn._supxlabel] if text.get_text()]
    assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 and box.y0 >= whole.y0 and box.y1 <= whole.y1 for box in boxes)
    assert not [(one, other) for one, other in itertools.combinations(boxes, 2) if one.overlaps(other)]
