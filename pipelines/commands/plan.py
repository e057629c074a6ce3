"""`sluice plan`: what a model and a run cost, before anything is spent."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sluice.components.workspace import Workspace
from sluice.core.cpus import available_cores
from sluice.data.config import TokenizerConfig
from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.config import PretrainConfig
from sluice.model.planner.settings import read_plan_settings
from sluice.pipelines.compose import compose
from sluice.pipelines.options import add_json, add_overrides
from sluice.pipelines.overrides import check_once

if TYPE_CHECKING:
    from sluice.model.planner.accelerators import Device
    from sluice.model.planner.step_forecast import ForecastCheck

_OWN = "plan."
_WITH_HF = ("pretrain.", "profile=")
"""Settings that have an effect beside --hf."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(
        parser,
        "as for run (model=llama-7b, model.layers=8, pretrain.dtype=bf16), and plan.device=h100-sxm, plan.devices=64, "
        "plan.tensor=8, plan.pipeline=4, plan.zero_stage=1, plan.mfu=0.4, plan.tokens=2e12, ..",
    )
    parser.add_argument("--hf", metavar="HF_DIR", help="plan the model of a Hugging Face directory's config.json")
    parser.add_argument("--plot", metavar="FILE", help="draw memory against sequence length and batch (.svg or .png)")
    parser.add_argument("--no-measure", action="store_true", help="arithmetic only: do not measure this machine")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    picture = None if arguments.plot is None else Path(arguments.plot)
    if picture is not None and picture.suffix not in {".svg", ".png"}:
        raise ValueError(f"--plot {arguments.plot}: the file's name must end in .svg or .png")
    if picture is not None and not picture.parent.is_dir():
        raise ValueError(f"--plot {arguments.plot}: there is no folder {picture.parent}")
    check_once(arguments.overrides)
    own = [each for each in arguments.overrides if each.startswith(_OWN)]
    others = [each for each in arguments.overrides if not each.startswith(_OWN)]
    settings = read_plan_settings(_values(own))
    config, pretrain = _model_and_run(arguments.hf, others)
    from sluice.model.planner.plan import plan

    # Once without the machine: what is refused is refused before anything is measured.
    made = plan(config, pretrain, settings)
    if not arguments.no_measure:
        machine, check = _measure(config, pretrain)
        made = plan(config, pretrain, settings, machine=machine, check=check)
    if arguments.json:
        print(made.model_dump_json())
    else:
        from sluice.pipelines.plan_tables import render

        print(render(made))
    if picture is not None:
        from sluice.model.planner.plot import draw_memory

        try:
            draw_memory(config, pretrain, settings, picture)
        except OSError as error:
            raise ValueError(f"--plot {picture} cannot be written: {error.strerror or error}") from None
        if not arguments.json:
            print(f"picture: {picture}")
    return 0


def _values(overrides: list[str]) -> dict[str, Any]:
    """plan.key=value."""
    values: dict[str, Any] = {}
    for override in overrides:
        name, equals, value = override.removeprefix(_OWN).partition("=")
        if not equals or not name:
            raise ValueError(
                f"'{override}' is not plan.key=value: for example plan.device=h100-sxm or plan.tokens=2e12"
            )
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"'{override}': {value} is no value; for example plan.devices=64") from None
    return values


def _model_and_run(hf: str | None, overrides: list[str]) -> tuple[TransformerConfig, PretrainConfig]:
    """From conf/ and the command line; the model from a Hugging Face directory where one is given."""
    if hf is not None:
        for override in overrides:
            if not override.startswith(_WITH_HF):
                raise ValueError(f"{override} would be ignored beside --hf, which defines the model: leave out one")
    params = compose(Workspace.find_or_default(), overrides)
    if hf is None:
        shape = TransformerConfig.from_settings(params[ModelConfig], params[TokenizerConfig].vocab_size)
        return shape, params[PretrainConfig]
    folder, path = Path(hf), Path(hf) / "config.json"
    if not folder.is_dir():
        raise ValueError(f"--hf {folder} is not a folder: name a Hugging Face model directory on this machine")
    if not path.is_file():
        raise ValueError(f"--hf {folder}: there is no config.json in it; a Hugging Face model directory has one")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path} must hold an object of settings, not {type(fields).__name__}")
    from sluice.model.huggingface import config_from_huggingface

    return config_from_huggingface(fields), params[PretrainConfig]


def _measure(config: TransformerConfig, run: PretrainConfig) -> tuple["Device", "ForecastCheck"]:
    """This machine's peak, and the forecast of a worker's step beside a real one."""
    import psutil

    from sluice.model.planner.step_measurement import check_forecast, this_machine

    cores = available_cores()
    machine = this_machine(run.dtype, cores)
    threads = max(1, cores // run.copies)
    check = check_forecast(
        config,
        run,
        threads=threads,
        peak_flops_per_s=machine.peak_flops_per_s * threads / cores,
        free_bytes=psutil.virtual_memory().available,
    )
    return machine, check
