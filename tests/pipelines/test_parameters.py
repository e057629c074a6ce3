"""conf/ and key=value: what is composed, and what is refused before anything runs."""

import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import yaml

from sluice.components.params import BLOCKS, load_block
from sluice.components.workspace import Workspace
from sluice.core.manifest import file_hash
from sluice.model.config import PretrainConfig
from sluice.pipelines import compose as composing
from sluice.pipelines.compose import write_params
from sluice.serving.config import RolloutConfig

GOLDEN = "conf/golden.yaml"
TOKENIZER = '{"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}'


def compose(workspace: Workspace, overrides: list[str]) -> dict[str, Any]:
    """The composed settings as params.yaml holds them."""
    return composing.compose(workspace, overrides).dump()


@pytest.fixture(scope="module")
def workspace(root: Path) -> Workspace:
    return Workspace(root)


@pytest.mark.filterwarnings("error")  # a user would see them before every run
def test_every_profile_composes_to_valid_blocks(workspace: Workspace) -> None:
    profiles = sorted(path.stem for path in (workspace.conf / "profile").glob("*.yaml"))
    assert {"laptop", "tiny"} <= set(profiles)
    for profile in profiles:
        assert set(compose(workspace, [f"profile={profile}"])) == {kind.block_name for kind in BLOCKS}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "it's",
            'say "hi"',
            "a,b",
            "(v=1)",
            "a=b",
            "a&b",
            "a#b",
            "[x]",
            "x[1]",
            "{x}",
            "Ünï côdé",
            "河边",
            "123",
            "true",
        ),
        *("no", "1e3", "a b", "a;b", "100%", "~x", "-dash", "a:b", "$HOME", "a\\b", "'q'", "a?b", "@x", "`x`"),
        "texts/Ünï côdé, (v=1)",
    ],
)
def test_a_path_is_a_path(workspace: Workspace, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name / "a.txt").write_text("text")
    assert compose(workspace, [f"data.sources={name}"])["data"]["sources"] == str(tmp_path / name)


def test_a_list_of_paths_may_be_longer_than_the_name_of_a_file(workspace: Workspace) -> None:
    sources = [f"https://example.org/a-{number}.txt" for number in range(400)]
    assert compose(workspace, [f"data.sources=[{','.join(sources)}]"])["data"]["sources"] == sources
    names = ["https://example.org/" + letter * 300 for letter in "ab"]
    assert compose(workspace, [f"data.sources=[{','.join(names)}]"])["data"]["sources"] == names


def test_paths_in_a_list_may_hold_any_letters(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Ünï côdé", "a,b", "plain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("text")
    listed = compose(workspace, ["data.sources=[Ünï côdé, 'a,b', plain]"])["data"]["sources"]
    assert listed == [str(tmp_path / name) for name in ("Ünï côdé", "a,b", "plain")]


def test_command_line_wins_over_the_profile(workspace: Workspace) -> None:
    tiny = compose(workspace, ["profile=tiny"])
    changed = compose(workspace, ["profile=tiny", "pretrain.steps=7", "data.sources=/texts"])
    assert changed["pretrain"]["steps"] == 7 != tiny["pretrain"]["steps"]
    assert changed["data"]["sources"] == "/texts"
    assert changed["model"] == tiny["model"]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("pretrain.stepz=3", ["pretrain.stepz", "did you mean 'pretrain.steps'", "learning_rate"]),
        ("pretrain.bananas=3", ["unknown key 'pretrain.bananas': allowed are"]),
        ("trainer.steps=3", ["trainer.steps", "pretrain", "profile"]),
        ("pretrain.steps=many", ["pretrain.steps", "many", "integer"]),
        ("pretrain.steps=0", ["pretrain.steps", "0", "greater than or equal to 1"]),
        ("pretrain.zero_stage=7", ["pretrain.zero_stage", "7", "0, 1, 2 or 3"]),
        ("model.heads=7", ["model", "heads 7"]),
        ("profile=huge", ["profile=huge", "laptop", "tiny"]),
        ("pretrain=3", ["pretrain", "pretrain.steps"]),
        ("+pretrain.new=3", ["+pretrain.new=3", "key=value", "a + is not needed"]),
        ("min_words=3", ["did you mean 'refine.min_words'?"]),
        ("steps=3", ["did you mean 'pretrain.steps' or 'tune.steps' or 'rollout.steps'?"]),
        ("pack.mix={foo:1.0}", ["pack.mix.foo: must be {weight: number, max_epochs: number}, and is 1.0"]),
        ("pack.mix=3", ["pack.mix: must be {NAME: {weight: number, max_epochs: number}}, and is 3"]),
        ("pack.mix={a:{wieght:1}}", ["unknown key 'pack.mix.a.wieght': allowed are max_epochs, weight"]),
        ("pack.mix={https://a.org/b:{weight:2}}", ["quote a name"]),
        ("data.sources=[{url: x}]", ["unknown key 'data.sources.0.url'", "uri"]),
        ("data.sources=[{markup: md}]", ["data.sources.0.uri is missing in {markup: md}"]),
        ("model.mixture.foo=3", ["unknown key 'model.mixture.foo'", "experts"]),
        ("pretrain.steps=1,2", ["pretrain.steps=1,2"]),
        ("refine.evaluation_sets={a:b}", ["refine.evaluation_sets={a:b}", "do not go together"]),
        ("~pretrain", ["~pretrain", "key=value"]),
        ("nonsense", ["nonsense", "key=value"]),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(workspace: Workspace, override: str, named: list[str]) -> None:
    with pytest.raises(ValueError) as refusal:
        compose(workspace, [override])
    message = str(refusal.value)
    assert "\n" not in message
    for part in named:
        assert part in message
    for never in ("instance of", "use +", "++", "hydra", "union", "multirun", "1. "):
        assert never not in message


@pytest.mark.parametrize(
    ("overrides", "mix"),
    [
        (["pack.mix={notes:{weight:2,max_epochs:1}}"], {"notes": (2.0, 1.0)}),
        (["pack.mix={'https://a.org/b c':{weight:2}, x/*.md:{}}"], {"https://a.org/b c": (2.0, 1.0), "x/*.md": (1, 1)}),
        (['pack.mix={"a=ü, {b}": {max_epochs: 3}}'], {"a=ü, {b}": (1.0, 3.0)}),
        (["pack.mix.notes.weight=3"], {"notes": (3.0, 1.0)}),
        (["pack.mix={}"], {}),
    ],
)
def test_a_mix_is_set_by_the_command_line(
    workspace: Workspace, overrides: list[str], mix: dict[str, tuple[float, float]]
) -> None:
    shares = {name: {"weight": weight, "max_epochs": epochs} for name, (weight, epochs) in mix.items()}
    assert compose(workspace, ["profile=tiny", *overrides])["pack"]["mix"] == shares


def test_a_mix_of_the_command_line_replaces_that_of_conf_whole(copy: Workspace) -> None:
    profile = copy.conf / "profile" / "tiny.yaml"
    profile.write_text(profile.read_text().replace("pack:\n", "pack:\n  mix: {a: {}}\n"))
    assert list(compose(copy, ["profile=tiny"])["pack"]["mix"]) == ["a"]
    assert list(compose(copy, ["profile=tiny", "pack.mix={b:{}}"])["pack"]["mix"]) == ["b"]
    assert compose(copy, ["profile=tiny", "pack.mix={}"])["pack"]["mix"] == {}


def test_a_key_given_twice_is_refused(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match=r"pretrain\.steps is given twice, as 3 and as 4: say once"):
        compose(workspace, ["pretrain.steps=3", "profile=tiny", "pretrain.steps=4"])


def test_a_source_in_the_mix_is_named_as_it_was_typed(copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    below = copy.root / "below"
    for name in ("a", "b"):
        (below / name).mkdir(parents=True)
        (below / name / "text.txt").write_text(name)
    monkeypatch.chdir(below)
    values = compose(copy, ["data.sources=[a/,b]", "pack.mix={a:{weight:2}, b/:{}, 'c*':{}}"])
    assert list(values["pack"]["mix"]) == ["below/a", "below/b", "c*"]


def test_a_tokenizer_that_is_given_is_not_trained(copy: Workspace) -> None:
    (copy.root / "tokenizer.json").write_text(TOKENIZER)
    given = "tokenizer.path=tokenizer.json"
    assert from_root(copy, [given])["tokenizer"]["path"] == "tokenizer.json", "the defaults of conf/ are no mistake"
    for beside in ("tokenizer.vocab_size=500", "tokenizer.algorithm=unigram", "tokenizer.min_frequency=3"):
        for overrides in ([given, beside], [beside, given]):
            with pytest.raises(ValueError, match=f"{beside} has no effect beside tokenizer.path"):
                from_root(copy, overrides)
    assert from_root(copy, ["tokenizer.path=null", "tokenizer.vocab_size=500"])["tokenizer"]["vocab_size"] == 500
    assert from_root(copy, [given, "tokenizer.special_tokens=['<|x|>']"])["tokenizer"]["special_tokens"] == ["<|x|>"]


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"model": {}}', '{"model": {"vocab": {}}, "added_tokens": 1}'])
def test_a_file_that_is_no_tokenizer_is_refused_before_anything_runs(copy: Workspace, content: str) -> None:
    (copy.root / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=r"bad\.json is not a tokenizer\.json") as refusal:
        from_root(copy, ["tokenizer.path=bad.json"])
    assert "\n" not in str(refusal.value)


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Workspace:
    """A workspace of the settings alone."""
    shutil.copytree(root / "conf", tmp_path / "copy" / "conf")
    return Workspace(tmp_path / "copy")


def test_params_are_rewritten_only_when_they_change(copy: Workspace) -> None:
    workspace = copy
    params = composing.compose(workspace, ["profile=tiny"])
    assert write_params(workspace.params, params)
    assert not write_params(workspace.params, params)
    assert yaml.safe_load(workspace.params.read_text()) == params.dump()
    assert load_block(workspace, PretrainConfig) == params[PretrainConfig]


def test_a_changed_file_is_a_changed_setting(copy: Workspace) -> None:
    files = {name: copy.root / f"{name}.json" for name in ("quiz", "quality", "tokenizer")}
    for path in files.values():
        path.write_text(TOKENIZER)
    overrides = [
        f"refine.evaluation_sets=[{GOLDEN},{{path: quiz.json, policy: cut}}]",
        "refine.quality_model=quality.json",
        "tokenizer.path=tokenizer.json",
    ]
    blocks = ("refine", "refine", "tokenizer")
    values = from_root(copy, overrides)
    assert [each["path"] for each in values["refine"]["evaluation_sets"]] == [GOLDEN, "quiz.json"]
    assert values["refine"]["evaluation_sets"][0]["sha256"] == file_hash(copy.root / GOLDEN)
    for block, path in zip(blocks, files.values(), strict=True):
        path.write_text(TOKENIZER + "\n")
        changed = from_root(copy, overrides)
        assert {name for name in values if values[name] != changed[name]} == {block}
        values = changed
    files["quiz"].touch()
    assert from_root(copy, overrides) == values, "neither time nor place of a file is of any account"


def test_a_local_source_counts_by_what_it_holds(copy: Workspace) -> None:
    texts = copy.root / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("first")
    values = from_root(copy, ["data.sources=texts"])
    (texts / "a.txt").touch()
    assert from_root(copy, ["data.sources=texts"]) == values
    (texts / "a.txt").write_text("second")
    changed = from_root(copy, ["data.sources=texts"])
    assert {key for key in values["data"] if values["data"][key] != changed["data"][key]} == {"sources_sha256"}
    assert {name for name in values if values[name] != changed[name]} == {"data"}
    assert "sources_sha256" not in from_root(copy, [])["data"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("data.sources_sha256=abc", "data.sources_sha256 abc is filled in from the files"),
        ("refine.evaluation_sets=[gone.jsonl]", "refine.evaluation_sets: gone.jsonl is no file"),
        ("refine.quality_model=gone.safetensors", "refine.quality_model: gone.safetensors is no file"),
        ("tokenizer.path=conf", "tokenizer.path: conf is no file"),
        (f"refine.evaluation_sets=[{{path: {GOLDEN}, sha256: abc}}]", "sha256 abc is filled in from the file itself"),
        ("refine.quality_model_sha256=abc", "sha256 abc is filled in from the file itself"),
        ("tokenizer.path_sha256=abc", "sha256 abc is filled in from the file itself"),
    ],
)
def test_a_file_that_is_not_there_and_a_hash_that_is_given_are_one_line(
    copy: Workspace, override: str, says: str
) -> None:
    with pytest.raises(ValueError) as refusal:
        from_root(copy, [override])
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_hash_in_conf_is_refused_as_on_the_command_line(copy: Workspace) -> None:
    path = copy.conf / "config.yaml"
    path.write_text(path.read_text().replace("policy: report}", "policy: report, sha256: abc}"))
    with pytest.raises(ValueError, match="sha256 abc is filled in from the file itself"):
        compose(copy, [])


def test_paths_of_the_command_line_are_from_the_folder_of_the_call(
    copy: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    below, beside = copy.root / "below", copy.root.parent / "beside"
    for folder in (below, beside):
        folder.mkdir()
        (folder / "quiz.jsonl").write_text('"first"\n')
    quiz, sources = "refine.evaluation_sets=[quiz.jsonl]", "data.sources=[texts/*.md,{uri: ../a, markup: md},s3://b/c]"
    monkeypatch.chdir(below)
    values = compose(copy, [quiz, sources])
    assert values["refine"]["evaluation_sets"][0]["path"] == "below/quiz.jsonl"
    assert values["data"]["sources"] == ["below/texts/*.md", {"uri": "a", "markup": "md"}, "s3://b/c"]
    monkeypatch.chdir(beside)
    values = compose(copy, [quiz, sources, "refine.index=/index"])
    assert values["refine"]["evaluation_sets"][0]["path"] == str(beside / "quiz.jsonl")
    assert values["data"]["sources"] == [
        str(beside / "texts/*.md"),
        {"uri": str(copy.root.parent / "a"), "markup": "md"},
        "s3://b/c",
    ]
    assert values["refine"]["index"] == "/index"
    assert compose(copy, [])["refine"]["evaluation_sets"][0]["path"] == GOLDEN, "conf/ is from the workspace"


def from_root(workspace: Workspace, overrides: list[str]) -> dict[str, Any]:
    with chdir(workspace.root):
        return compose(workspace, overrides)


def test_a_tilde_is_the_home_folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "texts").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compose(Workspace(root), ["data.sources=~/texts"])["data"]["sources"] == str(tmp_path / "texts")


def test_an_option_that_builds_on_another_of_its_group_is_refused_by_name(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("conf", "dvc.yaml"):
        (shutil.copytree if (root / name).is_dir() else shutil.copy)(root / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "conf" / "profile" / "mine.yaml"
    mine.write_text("# @package _global_\ndefaults: [laptop]\n")
    with pytest.raises(ValueError, match=r"mine\.yaml: 'laptop' is not supported in `defaults`.*override /GROUP"):
        composing.compose_without_files(Workspace(tmp_path), ["profile=mine"])
    mine.write_text("# @package _global_\ndefaults: [{override /model: tiny}, _self_]\n")
    assert composing.compose_without_files(Workspace(tmp_path), ["profile=mine"])


def test_what_conf_would_silently_ignore_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("conf", "dvc.yaml"):
        (shutil.copytree if (root / name).is_dir() else shutil.copy)(root / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    workspace, mine = Workspace(tmp_path), tmp_path / "conf" / "profile" / "mine.yaml"
    (tmp_path / "conf" / "hardware").mkdir()
    (tmp_path / "conf" / "hardware" / "gpu.yaml").write_text("# @package pretrain\nsteps: 1\n")
    with pytest.raises(ValueError, match="unknown key 'hardware'"):
        composing.compose_without_files(workspace, ["hardware=gpu"])
    for group in ("modle", "experiment"):
        mine.write_text(f"# @package _global_\ndefaults: [{{override /{group}: tiny}}]\n")
        with pytest.raises(ValueError, match=rf"`override /{group}` has no effect: .* data, model"):
            composing.compose_without_files(workspace, ["profile=mine"])
    config = tmp_path / "conf" / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("  - _self_\n", "  - _self_\n  - nonsense\n"))
    with pytest.raises(ValueError, match="'nonsense' in `defaults` is no group"):
        composing.compose_without_files(workspace, [])
    config.write_text(text.replace("  - _self_\n", ""))
    values = composing.compose_without_files(workspace, []).dump()
    assert values["refine"]["min_substring_words"] == 64 and values["refine"]["max_piece_copies"] == 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("conf/config.yaml", b"", r"config\.yaml is empty: correct it"),
        ("conf/config.yaml", b"defaults: 3", r"config\.yaml has no list `defaults`: correct it"),
        ("conf/config.yaml", b"- data", r"config\.yaml is damaged \(it is no mapping\): correct it"),
        ("conf/config.yaml", b"a: [1", r"config\.yaml is damaged \(while parsing .*: correct it"),
        ("conf/config.yaml", b"a: \xff", r"config\.yaml is damaged \('utf-8' codec .*: correct it"),
        ("conf/profile/tiny.yaml", b"", r"tiny\.yaml: begin it with `# @package _global_`, as 'profile' is no block"),
        ("conf/profile/tiny.yaml", b"- 1", r"tiny\.yaml is damaged \(it is no mapping\): correct it"),
        ("conf/profile/tiny.yaml", b"a: \xff", r"tiny\.yaml is damaged \('utf-8' codec .*: correct it"),
    ],
)
def test_a_damaged_file_of_conf_is_named(copy: Workspace, name: str, content: bytes, message: str) -> None:
    (copy.root / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        composing.compose_without_files(copy, ["profile=tiny"])


@pytest.mark.parametrize("content", [b"", b"- 1", b"pretrain: [", b"\xff", b"data:\n  sources: a\n  to"])
def test_damaged_settings_of_a_run_are_named_and_composed_again(copy: Workspace, content: bytes) -> None:
    copy.params.write_bytes(content)
    with pytest.raises(ValueError, match=r"params\.yaml is (empty|damaged).*: `sluice run` composes it again"):
        load_block(copy, PretrainConfig)
    assert write_params(copy.params, composing.compose(copy, ["profile=tiny"]))
    assert load_block(copy, PretrainConfig)


def test_the_default_steps_of_a_rollout_are_those_of_the_quick_option(workspace: Workspace) -> None:
    for option in ("quick", "careful"):
        composed = RolloutConfig.model_validate(compose(workspace, [f"rollout={option}"])["rollout"])
        assert (composed == RolloutConfig.model_validate({})) == (option == "quick")
