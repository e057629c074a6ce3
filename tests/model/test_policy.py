"""Policy files: complete by the metrics' defaults, and refused in one line that names file and key."""

import pytest

from sluice.model.evaluation.metrics import METRICS
from sluice.model.evaluation.policy import Policy, load_policy


def write(tmp_path, text):
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["default", "laptop", "tiny"])
def test_the_policies_that_are_shipped_can_be_read(root, name):
    found = load_policy(root / "conf" / "gate" / f"{name}.yaml")
    assert found.name == name and set(found.metrics) == {metric.name for metric in METRICS}
    if name == "default":
        assert found.metrics == {metric.name: metric.policy for metric in METRICS}


def test_a_file_changes_single_bounds_and_its_hash(tmp_path):
    head = "name: strict\nversion: 2\n"
    default = load_policy(write(tmp_path, head))
    found = load_policy(write(tmp_path, f"{head}metrics:\n  bits_per_byte: {{margin: 0.01}}\n"))
    changed = default.metrics["bits_per_byte"].model_copy(update={"margin": 0.01})
    assert found.metrics == {**default.metrics, "bits_per_byte": changed}
    assert found.sha256 != default.sha256 == Policy(name="strict", version=2).sha256


def test_least_counts_follow_scale_and_kind(tmp_path):
    suites = "{share: {}, bits: {scale: mean}, few: {scale: mean, min_clusters: 9}, sound: {kind: golden, floor: 1}}"
    found = load_policy(write(tmp_path, f"name: n\nversion: 1\nsuites: {suites}\n"))
    counts = {name: (each.min_clusters, each.min_items) for name, each in found.suites.items()}
    assert counts == {"share": (30, None), "bits": (80, None), "few": (9, None), "sound": (30, None)}
    assert found.metrics["golden_pass_rate"].min_items == 10


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "metrics:\n  bits_per_bite: {margin: 1}\n",
            "unknown metric 'bits_per_bite' in `metrics`: allowed are bits_per",
        ),
        ("metrics:\n  bits_per_byte: {margins: 1}\n", "unknown key 'metrics.bits_per_byte.margins': allowed are alpha"),
        (
            "metrics:\n  bits_per_byte: {margin: much}\n",
            "metrics.bits_per_byte.margin=much: input should be a valid num",
        ),
        ("metrics:\n  bits_per_byte: {margin: -1}\n", "metrics.bits_per_byte.margin=-1: input should be greater than"),
        ("metrics:\n  bits_per_byte: {floor: .nan}\n", "metrics.bits_per_byte.floor=nan: input should be a finite num"),
        ("metrics:\n  bits_per_byte: {beat_reference: 2}\n", "metrics.bits_per_byte.beat_reference=2: input should be"),
        ("metrics:\n  bits_per_byte: 3\n", "metrics.bits_per_byte: must be {"),
        ("suites: {a: {over_chance: true, scale: mean}}\n", "over_chance is of shares of right choices"),
        ("metrics:\n  golden_pass_rate: {over_chance: true}\n", "over_chance has no effect for golden_pass_rate"),
        ("min_kappa: 0.59\n", "min_kappa=0.59: input should be greater than or equal to 0.6"),
        ("suites: {a: {floor: 0.5, sha256: b96b}}\n", "suites.a.sha256=b96b: "),
        (f"metrics:\n  bits_per_byte: {{sha256: {'a' * 64}}}\n", "sha256 has no effect for bits_per_byte, whose items"),
        ("metrics: 3\n", "metrics: must be {NAME: "),
        ("metrics: [bits_per_byte]\n", "metrics: must be {NAME: "),
        ("suites: {a: {kind: quality, floor: 0.5}}\n", "kind quality needs `scorer`"),
        ("suites: {a: {kind: safety, floor: 0.5}}\n", "kind safety is a rate of harm"),
        ("suites: {a: {scorer: judge}}\n", "scorer judge has no effect with kind regression"),
        ("suites: {a: {tail: {beyond: 1, share: 0.5}}}\n", "tail has no effect with scale rate"),
        ("metrics:\n  bits_per_byte: {max_lost: 0}\n", "max_lost counts answers, which scale mean has none of"),
        ("metrics:\n  choice_accuracy: {beat_reference: true}\n", "beat_reference has no effect for choice_accuracy"),
        ("suites: {a: {floor: 0.5, beat_reference: true}}\n", "beat_reference has no effect for a: only bits_per_byte"),
        ("metrics: {1: {}, a: {}}\n", "unknown metric '1' in `metrics`"),
        ("suites: {{name}: {floor: 1}}\n", "key {'name': None} is no text"),
        ("suites: {bits_per_byte: {floor: 1}}\n", "'bits_per_byte' is a metric: put it into `metrics`"),
        (
            "slices: [{metric: bits, key: source, margin: 1}]\n",
            "unknown metric 'bits' in `slices`: allowed are bits_per",
        ),
        ("slices: [{metric: bits_per_byte, margin: 1}]\n", "slices.0.key is missing"),
        ("alpha: 0.7\n", "alpha=0.7: input should be less than 0.5"),
        ("alpha: true\n", "alpha true is no number"),
        ("name: again\n", "key 'name' is given twice"),
        ("metrics:\n  a: 1\n  a: 2\n", "key 'a' is given twice"),
        ("limits: {}\n", "unknown key 'limits': allowed are alpha, anchor, metrics"),
        ("- 3\n", "is not a policy: "),
    ],
)
def test_a_mistake_is_one_line_with_file_and_key(tmp_path, text, says):
    path = write(tmp_path, f"name: n\nversion: 1\n{text}")
    with pytest.raises(ValueError) as caught:
        load_policy(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and says in message and "\n" not in message


def test_a_file_that_is_no_policy_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml: no such policy; name a YAML file such as"):
        load_policy(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match=r"policy\.yaml is not a policy: it must be a mapping"):
        load_policy(write(tmp_path, "just text\n"))
    with pytest.raises(ValueError, match=r"policy\.yaml: name is missing"):
        load_policy(write(tmp_path, "version: 1\n"))


@pytest.mark.parametrize("off", ["off", "false", "null", "'off'"])
def test_a_metric_that_is_off_is_out_of_the_policy_and_of_its_hash(tmp_path, off):
    head = "name: n\nversion: 1\n"
    all_on, found = (
        load_policy(write(tmp_path, f"{head}{more}")) for more in ("", f"metrics: {{bits_per_byte: {off}}}\n")
    )
    assert set(all_on.metrics) - set(found.metrics) == {"bits_per_byte"} == set(found.off) and all_on.off == ()
    assert found.sha256 != all_on.sha256


@pytest.mark.parametrize("other", ["on", "0", "none"])
def test_no_other_value_takes_a_metric_out(tmp_path, other):
    with pytest.raises(ValueError, match=r"metrics\.bits_per_byte: must be"):
        load_policy(write(tmp_path, f"name: n\nversion: 1\nmetrics: {{bits_per_byte: {other}}}\n"))


def test_a_missing_key_is_named_without_the_document(tmp_path):
    path = write(tmp_path, "name: n\nsuites: {arithmetic: {floor: 0.5}}\n")
    with pytest.raises(ValueError) as refused:
        load_policy(path)
    assert str(refused.value) == f"{path}: version is missing"
