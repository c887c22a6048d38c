"""The repository as a whole: layers, shipped configurations, documented commands, and the size of things."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vlm3d_ct
from vlm3d_ct.cli.main import build_parser
from vlm3d_ct.config import load_config

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "vlm3d_ct"
MODULES = sorted(PACKAGE.rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONGEST_MODULE = 350
LONGEST_FUNCTION = 60
ENTRIES = {"training/train.py": ["train"], "evaluation/retrieval.py": ["evaluate", "retrieval"]}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_configuration_loads(path: Path):
    load_config(path)


def test_the_plans_configurations_hold_the_plans_numbers():
    pretrain = load_config(ROOT / "configs/pretrain_ctrate.yaml").training
    finetune = load_config(ROOT / "configs/finetune_combined.yaml").training
    for training, numbers in ((pretrain, (50, 8, 2, 1e-4)), (finetune, (20, 16, 1, 5e-5))):
        assert (training.num_epochs, training.batch_size, training.accumulation_steps, training.lr) == numbers
        assert training.precision == "fp16"


def test_the_layers_hold():
    checked = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_reading_scans_needs_no_torch():
    modules = "vlm3d_ct.volumes.nifti, vlm3d_ct.audit.verify, vlm3d_ct.text.tokenize"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_front_door_opens():
    for name in vlm3d_ct.__all__:
        assert getattr(vlm3d_ct, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vlm3d_ct.nothing


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_functions_stay_readable(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_MODULE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, node.name


def imported_by(path: Path) -> set[str]:
    """Dotted names that a module imports, as modules or from modules."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_every_module_is_reached_from_the_commands():
    paths = {".".join(("vlm3d_ct", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in MODULES}
    modules = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    reached, waiting = set(), ["vlm3d_ct.cli.main"]
    while waiting:
        name = waiting.pop()
        if name in modules and name not in reached:
            reached.add(name)
            waiting += [name.rpartition(".")[0], *imported_by(modules[name])]
    assert modules.keys() - reached == set()


def test_nothing_is_unpickled():
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert "import pickle" not in text, path
        for call in re.findall(r"torch\.load\((?:[^()]|\([^()]*\))*\)", text):
            assert "weights_only=True" in call, path
        for call in re.findall(r"np\.load\((?:[^()]|\([^()]*\))*\)", text):
            assert "allow_pickle=False" in call, path


def documented_commands() -> Iterator[tuple[str, str]]:
    """Every command of the package in a bash block of a document, continued lines joined."""
    for document in DOCUMENTS:
        for block in re.findall(r"^```(?:bash|sh)\n(.*?)^```", document.read_text(encoding="utf-8"), re.S | re.M):
            for line in block.replace("\\\n", " ").splitlines():
                if any(word in line for word in ("vlm3d-ct ", *ENTRIES)) and not line.lstrip().startswith("#"):
                    yield document.name, line.strip()


def arguments_of(line: str) -> list[str]:
    """What the package's own parser gets from a command line."""
    words = shlex.split(line, comments=True)
    for script, command in ENTRIES.items():
        if script in words:
            return [*command, *words[words.index(script) + 1 :]]
    program = next(i for i, word in enumerate(words) if word.endswith("vlm3d-ct"))
    return words[program + 1 :]


def refusal(arguments: list[str]) -> str:
    """What the parser says against a command line; empty if nothing."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        build_parser().parse_args(arguments)
    return said.getvalue()


def test_every_documented_command_parses():
    seen = list(documented_commands())
    assert len(seen) >= 5
    refused = {f"{document}: {line}": answer for document, line in seen if (answer := refusal(arguments_of(line)))}
    assert refused == {}


def test_the_plans_commands_are_documented():
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    text = " ".join(readme.split())
    for command in (
        "python -m torch.distributed.launch --nproc_per_node=2 --master_port=29500 training/train.py "
        "--config configs/pretrain_ctrate.yaml --output_dir exp_log/pretrain "
        "--num_epochs 50 --batch_size 8 --lr 1e-4 --fp16",
        "python -m torch.distributed.launch --nproc_per_node=2 training/train.py "
        "--config configs/finetune_combined.yaml --output_dir exp_log/finetune "
        "--num_epochs 20 --batch_size 16 --lr 5e-5 --fp16 --resume exp_log/pretrain/checkpoint_best.pth",
        "python evaluation/retrieval.py --checkpoint exp_log/finetune/checkpoint_best.pth "
        "--data_dir /path/to/test/data --output_dir exp_log/eval_results",
        "tensorboard --logdir exp_log/tensorboard --port 6006",
    ):
        assert command in text


def test_nothing_names_the_machine_it_was_written_on():
    suspicious = re.compile(r"(?<![\w.])/(?:work|tmp|root|home)/(?!\$)\w")
    for path in [*MODULES, *CONFIGS, *DOCUMENTS, *(ROOT / "tests").rglob("*.py")]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not suspicious.search(line), f"{path.relative_to(ROOT)}:{number}: {line}"
