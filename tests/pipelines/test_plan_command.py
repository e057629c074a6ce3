"""`sluice plan`: what it prints, what it refuses, and a Hugging Face directory's model."""

import json
from pathlib import Path
from typing import Any

import pytest
from architecture_fixtures import shape

from sluice.model.config import PretrainConfig
from sluice.model.planner.accelerators import DEVICES
from sluice.model.planner.plan import plan
from sluice.model.planner.step_forecast import StepForecast, StepMeasured, forecast_check
from sluice.pipelines.cli import main
from sluice.pipelines.plan_tables import render

WIDTH = 100


pytestmark = pytest.mark.usefixtures("empty_workspace")


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["plan", "--no-measure", "--json", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["plan", "--no-measure", *arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith("sluice plan: ") and said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("model", "total"),
    [
        ("transformer-base", 63_045_632),
        ("gpt2-medium", 354_823_168),
        ("llama-7b", 6_738_415_616),
        ("llama-2-70b", 68_976_648_192),
        ("mixtral-8x7b", 46_702_792_704),
    ],
)
def test_published_models_are_planned_by_name(capsys: pytest.CaptureFixture[str], model: str, total: int) -> None:
    found = planned(capsys, f"model={model}")
    assert found["parameters"]["total"] == total
    assert found["flops"]["training"] == 3 * found["flops"]["forward"] > 0
    assert found["memory"] and found["costs"] and found["compute_optimal"] and found["serving"]


def test_keys_change_the_model_the_run_and_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(
        capsys,
        *("profile=tiny", "model.layers=3", "pretrain.batch_size=16", "pretrain.workers=1"),
        *("plan.device=h200", "plan.devices=4", "plan.zero_stage=1", "plan.tokens=2e9"),
    )
    assert found["shape"]["layers"] == 3
    assert [cost["device"] for cost in found["costs"]] == ["h200"]
    assert {row["zero_stage"] for row in found["memory"]} == {1}
    assert (found["tokens"], found["layout"]["devices"]) == (2 * 10**9, 4)


DIVIDED = (
    "plan.devices=64",
    "plan.tensor=8",
    "pretrain.batch_size=64",
    "pretrain.micro_batch_size=1",
    "pretrain.optimizer=adamw",
)
OWN_WAYS = (
    "model.kv_heads=2",
    *("pretrain.optimizer=adamw", "pretrain.workers=4", "pretrain.tensor_parallel=2", "pretrain.pipeline_stages=2"),
    *("pretrain.zero_stage=0", "pretrain.activation_checkpointing=full"),
)


def test_the_runs_own_ways_of_sharing_are_planned(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, *OWN_WAYS)
    assert found["layout"] == {"devices": 4, "tensor": 2, "pipeline": 2, "zero_stage": 0}
    assert {(row["tensor"], row["pipeline"]) for row in found["memory"]} == {(2, 2)}
    assert {(each["zero_stage"], each["checkpointing"]) for each in found["fits"]} == {(1, True)}
    assert main(["plan", "--no-measure", *OWN_WAYS]) == 0
    printed = capsys.readouterr().out
    assert "data 1 x tensor 2 x pipeline 2" in printed
    assert "The run: ZeRO 0, activation_checkpointing full, offload none" in printed


def test_the_plans_degrees_stand_above_the_runs(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, *OWN_WAYS, "plan.tensor=1", "plan.pipeline=4", "plan.zero_stage=1")
    assert found["layout"] == {"devices": 4, "tensor": 1, "pipeline": 4, "zero_stage": 1}
    assert {each["zero_stage"] for each in found["fits"]} == {1}


def test_the_batch_is_shared_by_copies_of_the_model_not_by_workers(capsys: pytest.CaptureFixture[str]) -> None:
    run = ("pretrain.workers=4", "pretrain.pipeline_stages=4", "pretrain.batch_size=16")
    assert planned(capsys, *run, "pretrain.micro_batch_size=16")["layout"]["pipeline"] == 4


def test_what_is_offloaded_is_the_hosts(capsys: pytest.CaptureFixture[str]) -> None:
    run = ("pretrain.zero_stage=1", "pretrain.offload=optimizer")
    for row in planned(capsys, *run)["memory"]:
        assert (row["host_bytes"] > 0) == (row["optimizer_bytes"] == 0) == (row["zero_stage"] > 0)
    assert main(["plan", "--no-measure", *run]) == 0
    assert "offloaded, so in the host's memory instead: up to " in capsys.readouterr().out


def test_selective_checkpointing_is_said_to_be_counted_as_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--no-measure", "pretrain.activation_checkpointing=selective"]) == 0
    assert "selective checkpointing is counted as none, an upper end" in capsys.readouterr().out


def test_a_model_that_does_not_fit_is_told_and_not_priced(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("model=llama-2-70b", "plan.device=h100-sxm")
    found = planned(capsys, *arguments)
    assert [each["fits"] for each in found["fits"]] == [False]
    (cost,) = found["costs"]
    assert {name for name, value in cost.items() if value is not None} == {"device", "devices", "mfu"}
    assert main(["plan", "--no-measure", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("h100-sxm"))
    assert " no: " in row and " GiB > 71.7 GiB" in row and "$" not in row
    assert any(line.startswith("To make it fit: more devices, plan.tensor") for line in lines)
    assert planned(capsys, *arguments, *DIVIDED)["fits"][0]["fits"]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("model=mixtral-8x7b", "plan.devices=64", "pretrain.batch_size=512"),
        ("model=transformer-base",),
        ("model=llama-2-70b", "plan.tokens=2e12", "plan.devices=4096", "pretrain.batch_size=65536"),
        ("model.kind=encoder",),
    ],
)
def test_the_table_fits_its_width(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    assert main(["plan", "--no-measure", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert not any("…" in line for line in lines)
    for title in ("Parameters", "Arithmetic a token", "Attention's share", "Memory of the fullest", "Training on"):
        assert sum(line.startswith(title) for line in lines) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plan.gpu=1",), "unknown key 'plan.gpu': allowed are context,"),
        (("plan.device=h300",), "plan.device=h300"),
        (("plan.mfu",), "'plan.mfu' is not plan.key=value"),
        (("plan.mfu=0.4", "plan.mfu=0.5"), "plan.mfu is given twice"),
        (("plan.mfu=1.5",), "plan.mfu=1.5: input should be less than or equal to 1"),
        (("plan.tensor=3",), "workers 1 must be a multiple of pipeline_stages x tensor_parallel = 1 x 3"),
        (("plan.devices=64",), "pretrain.batch_size 8 must be a multiple of"),
        (
            ("model=transformer-base", "plan.devices=2", "plan.pipeline=2"),
            "pipeline_stages 2 is not supported with an encoder-decoder",
        ),
        (
            ("plan.devices=2", "plan.pipeline=2", "plan.zero_stage=3"),
            "pipeline_stages 2 is not supported with zero_stage 3",
        ),
        (("plan.context=1000000",), "context 1000000 is longer than the model's 256"),
        (("model.layers=0",), "model.layers"),
        (("--plot", "plan.pdf"), "--plot plan.pdf: the file's name must end in .svg or .png"),
        (("--plot", "nowhere/plan.svg"), "there is no folder nowhere"),
        (("--hf", "nowhere"), "--hf nowhere is not a folder"),
        (("--hf", "/proc"), "--hf /proc: there is no config.json in it"),
        (("model.layers=3", "model.layers=4"), "model.layers is given twice, as 3 and as 4"),
        (("--hf", "nowhere", "model.layers=3"), "model.layers=3 would be ignored beside --hf"),
    ],
)
def test_what_cannot_be_is_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(capsys, *arguments)


@pytest.mark.parametrize(("text", "said"), [("{", "is no JSON"), ("[]", "must hold an object of settings, not list")])
def test_a_broken_config_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert said in refused(capsys, "--hf", str(tmp_path))


def test_a_hugging_face_directory_is_planned(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=500,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    model = transformers.LlamaForCausalLM(config)
    model.config.save_pretrained(tmp_path)
    found = planned(capsys, "--hf", str(tmp_path), "pretrain.workers=1")
    assert found["parameters"]["total"] == model.num_parameters()


@pytest.mark.parametrize("name", ["plan.svg", "plan.png"])
def test_the_picture_is_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    assert main(["plan", "--no-measure", "model=llama-7b", "--plot", str(tmp_path / name)]) == 0
    assert f"picture: {tmp_path / name}" in capsys.readouterr().out
    first = (tmp_path / name).read_bytes()
    assert first.startswith(b"<?xml" if name.endswith("svg") else b"\x89PNG")
    planned(capsys, "model=llama-7b", "--plot", str(tmp_path / name))
    assert (tmp_path / name).read_bytes() == first


@pytest.mark.process
def test_the_forecast_is_held_against_a_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.model.planner.step_measurement.TIMEOUT_S", 600.0)
    arguments = ["profile=tiny", "pretrain.optimizer=adamw", "pretrain.workers=1"]
    assert main(["plan", "--json", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    check = found["check"]
    assert check["skipped"] is None
    assert check["step_error"] == pytest.approx(check["forecast"]["step_s"] / check["measured"]["step_s"] - 1)
    assert found["machine"]["peak_flops_per_s"] > 1e8
    assert found["serving"][-1]["device"] == "this machine"


def test_a_forecast_is_printed_beside_what_was_measured_with_its_error() -> None:
    made = plan(
        shape({}),
        PretrainConfig(),
        machine=DEVICES["a10g"].model_copy(update={"name": "this machine"}),
        check=forecast_check(
            threads=1,
            micro_batches=2,
            forecast=StepForecast(step_s=3.0, memory_bytes=90 * 2**20),
            measured=StepMeasured(step_s=2.0, clock_s=4.0, memory_bytes=120 * 2**20),
        ),
    )
    rows = [" ".join(line.split()) for line in render(made).splitlines()]
    assert rows[-3:] == [
        "a step 3.0 s 2.0 s +50%",
        "a step, by the clock 4.0 s -25%",
        "memory 90 MiB 120 MiB -25%",
    ]


def test_a_model_too_large_for_this_machine_is_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "model=llama-2-70b"]) == 0
    assert "no step measured: a worker needs" in capsys.readouterr().out


def test_a_picture_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.svg").mkdir()
    assert main(["plan", "--no-measure", "--plot", str(tmp_path / "plan.svg")]) == 1
    said = capsys.readouterr().err
    assert said == f"sluice plan: --plot {tmp_path / 'plan.svg'} cannot be written: Is a directory\n"


def test_a_key_that_is_nearly_right_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--no-measure", "plan.devces=8"]) == 1
    assert capsys.readouterr().err.endswith("; did you mean devices?\n")
