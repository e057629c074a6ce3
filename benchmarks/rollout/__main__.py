"""Simulate rollouts, one set of true rates, or the whole table of docs/release.md.

python -m benchmarks.rollout --true-errors 0.03 --champion-errors 0.005 [--latency-ratio 1.6 --latency-spread 0.5]
    [--shared-errors 0.1] [--bursts] --replays-per-second 2.5 --rollouts 2000 --seed 1 [--rule RULE] [--json]
python -m benchmarks.rollout --table [--rollouts 2000] [--rule RULE]
"""

import argparse
import json
from dataclasses import fields

from benchmarks.rollout.simulate import RULES, simulate, summary
from benchmarks.rollout.traffic import Scenario


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Scenario):
        flag = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            parser.add_argument(flag, action="store_true")
        else:
            parser.add_argument(flag, type=type(field.default), default=field.default)
    parser.add_argument("--max-error-increase", type=float)
    parser.add_argument("--rollouts", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rule", choices=sorted(RULES), help="default: ours; with --table, all")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--table", action="store_true", help="write the tables of docs/release.md")
    arguments = parser.parse_args()
    if arguments.rollouts < 1:
        parser.error(f"--rollouts {arguments.rollouts} must be at least 1")
    if arguments.table:
        from benchmarks.rollout.page import write_tables

        write_tables(arguments.rollouts, arguments.seed, [arguments.rule] if arguments.rule else RULES)
        return
    scenario = Scenario(**{field.name: getattr(arguments, field.name) for field in fields(Scenario)})
    endings = simulate(
        scenario, arguments.rollouts, arguments.seed, arguments.rule or "ours", arguments.max_error_increase
    )
    found = summary(endings)
    print(json.dumps(found) if arguments.json else "\n".join(f"{name:28} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
