"""A section that hides no miss, candidates that are named when they fail, and weights that both libraries share."""

import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.model import accelerator, candidate, ours, turns
from benchmarks.model.__main__ import training_cases
from benchmarks.model.case import Case, Kernel, Round, Started
from benchmarks.model.page import NO_ACCELERATOR, accelerated, render
from benchmarks.model.plots import draw
from benchmarks.model.results import Accelerated, Comparison, Results
from benchmarks.model.section import put
from benchmarks.model.shapes import SHAPES
from benchmarks.model.targets import Target, targets
from benchmarks.model.turns import Measured
from sluice.model.architecture.kernels import KERNELS
from sluice.model.architecture.transformer import Transformer


def test_what_is_missed_is_named():
    results = _results(ours_s=0.9)
    missed = [target.name for target in targets(results) if not target.is_met]
    assert len(missed) == len(targets(results)) == 6
    page = render(results)
    assert all(name in page for name in missed)
    assert "**not met**" in page
    assert "**not met**" not in render(_results(ours_s=0.4))


def test_a_figure_that_is_no_number_is_not_met():
    assert not Target("x", math.nan, 1.0).is_met


def test_figures_are_rounded_against_us():
    assert "| 1.99 | ≥ 2 | **not met** |" in render(_results(ours_s=1 / 1.999))


def test_nothing_compared_is_no_pass():
    with pytest.raises(ValueError, match="nothing was compared"):
        targets(Results(machine="a machine", threads=2, rounds=1, libraries=""))


def test_different_tokens_are_told():
    results = _results(ours_s=0.4)
    assert "All candidates in fp32 generated the same tokens" in render(results)
    name = "sluice, fp32, eager"
    wrong = results.generation[0].candidates[name]
    results.generation[0].candidates[name] = wrong.model_copy(
        update={"started": wrong.started.model_copy(update={"check": [9.0]})}
    )
    assert "**The tokens generated differ" in render(results)


def test_equal_results_draw_equal_pictures(tmp_path: Path):
    drawn = []
    for _ in range(2):
        draw(_results(ours_s=0.4), tmp_path)
        drawn.append((tmp_path / "model-speed.svg").read_bytes())
    assert drawn[0] == drawn[1]
    assert drawn[0].startswith(b"<?xml")


def test_without_an_accelerator_the_section_says_so():
    assert NO_ACCELERATOR in render(_results(ours_s=0.4))


def test_an_accelerator_is_held_to_its_data_sheet_and_what_could_not_run_is_told():
    cases = accelerator.cases("350M", 2048)
    assert len(cases) == 2 * (len(accelerator.KERNELS) + 1)
    measured = {name: _measured(case, 1.0, [6.0]) for name, case in cases.items()}
    text = accelerated(
        Accelerated(
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
def test_a_section_replaces_itself_alone(before: str, after: str, text: str):
    page = before + "<!-- speed: begin -->\nold\n<!-- speed: end -->" + after
    assert put(page, "speed", text) == before + f"<!-- speed: begin -->\n{text}\n<!-- speed: end -->" + after
    new = put(before, "speed", text)
    assert put(new, "speed", text) == new
    assert text in new


def test_a_lost_mark_is_refused():
    with pytest.raises(ValueError, match="marks"):
        put("<!-- speed: begin -->", "speed", "text")


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


def test_renamed_weights_are_those_of_our_model():
    shape = SHAPES["smoke"]
    theirs = ["model.embed_tokens.weight", "model.norm.weight"]
    for layer in range(shape.layers):
        names = ("input_layernorm", "post_attention_layernorm", *(f"self_attn.{each}_proj" for each in "qkvo"))
        feedforward = (f"mlp.{each}_proj" for each in ("gate", "up", "down"))
        theirs += [f"model.layers.{layer}.{each}.weight" for each in (*names, *feedforward)]
    with torch.device("meta"):
        expected = set(Transformer(shape.config(32)).state_dict())
    assert set(ours.renamed({name: torch.empty(0) for name in theirs})) == expected


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


def _results(ours_s: float) -> Results:
    training = training_cases("5M", 256, 2, "weights")
    generation = {
        f"{library}, fp32, eager": Case(work="generate", library=library, shape="5M")
        for library in ("sluice", "transformers")
    }
    return Results(
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
