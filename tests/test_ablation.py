"""The grid, its cells and its tables. Most tests put quick stand-ins in the place of train.py and
eval.py; that the real ones take part is tested at the end."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from detector.ablation import cells as cells_module
from detector.ablation import engines
from detector.ablation.cells import Ablation, count_epochs, read_outcome, run_cell
from detector.ablation.engines import make_environment, visible_gpus, write_slurm
from detector.ablation.grid import Axis
from scripts import ablate
from tests.test_grid import grid, losses

ROOT = Path(__file__).parents[1]
FEW = ["--draws", "20"]
LOSSES = [*FEW, "--class_loss", "FocalLoss", "SigmoidCrossEntropy"]
STAND_IN_TRAIN = """
import json, os, sys, time
from pathlib import Path
import yaml

flag, value = sys.argv[1:3]
config = yaml.safe_load(Path(value, "config.yaml" if flag == "--resume" else "").read_text())
run = Path(config["run"])
path = run / "metrics.json"
epochs = json.loads(path.read_text())["epochs"] if path.is_file() else []
if flag == "--config":
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
with open(run.parent.parent / "begun.txt", "a") as file:
    file.write(f"{run.name} {flag} {os.environ.get('OMP_NUM_THREADS')}\\n")
loss = config["model"]["class_loss"]["name"]
for epoch in range(len(epochs) + 1, config["trainer"]["max_epochs"] + 1):
    if config["optimizer"]["lr"] == 666:
        print("much talk")
        sys.exit("error: the loss was not finite for 20 updates in a row")
    time.sleep(float(os.environ.get("STAND_IN_SECONDS", 0)))
    (run / "checkpoints" / "last.ckpt").write_text(str(epoch))
    line = {"epoch": epoch, "seconds": 1.0, "step_seconds": 0.1 * epoch, "memory": 1.0 + epoch}
    epochs.append({**line, "val/AP": epoch / 100, "val/AP50": epoch / 50})
    path.write_text(json.dumps({"epochs": epochs}))
"""
STAND_IN_EVAL = """
import json, sys
from pathlib import Path
import yaml

run = Path(sys.argv[1])
assert sys.argv[2:] == ["--checkpoint", "last"]
config = yaml.safe_load((run / "config.yaml").read_text())
truth = json.loads(Path(config["data"]["root"], "annotations/instances_val.json").read_text())
# focal loss misses fewer of the objects; seeds differ a little
missed = {"FocalLoss": 5}.get(config["model"]["class_loss"]["name"], 2)
rows = [
    {"image_id": row["image_id"], "category_id": row["category_id"], "bbox": row["bbox"],
     "score": 0.9 - 0.01 * ((number + config["seed"]) % 7)}
    for number, row in enumerate(truth["annotations"]) if (number + config["seed"]) % missed
]
(run / "eval").mkdir(exist_ok=True)
(run / "eval" / "detections.json").write_text(json.dumps(rows))
summary = {"AP": 1 - 1 / missed, "AP50": 0.9, "AP75": 0.8}
(run / "eval" / "metrics.json").write_text(json.dumps({"summary": summary, "data": config["data"]}))
"""


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "stand_ins"
    (folder / "scripts").mkdir(parents=True)
    (folder / "train.py").write_text(STAND_IN_TRAIN)
    (folder / "eval.py").write_text(STAND_IN_EVAL)
    for module in (cells_module, engines):
        monkeypatch.setattr(module, "ROOT", folder)
    return folder


def one_blank(text: str) -> str:
    """Without what aligns the columns of a table."""
    return re.sub(" +", " ", text)


def begun(out: Path) -> list[str]:
    return (out / "begun.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing is varied: give --class_loss, --box_loss or --vary"),
        (["--class_loss"], "model.class_loss has no values"),
        (["--vary"], "--vary needs a value"),
        (["--class_loss", "FocalLos"], "no such loss: 'FocalLos'; did you mean 'FocalLoss'"),
        (["--class_loss", "FocalLoss", "FocalLoss"], "has a value twice"),
        (["--vary", "modle.depth", "18"], "did you mean"),
        (["--vary", "model.class_loss.gama", "1"], "FocalLoss has no argument 'gama'"),
        (
            ["--vary", "data.root", "a", "b"],
            "cannot be an axis: all cells are evaluated on the same",
        ),
        (["--vary", "seed", "1", "2"], "cannot be an axis: use --seeds"),
        ([*LOSSES, "--vary", "model.class_loss", "GHMC"], "is an axis twice"),
        ([*LOSSES, "--seeds"], "--seeds needs a value: a whole number from 0 up"),
        ([*LOSSES, "--seeds", "1", "1"], "--seeds has a value twice"),
        ([*LOSSES, "--seeds", "0", "x"], "--seeds (command line): expected a whole number"),
        ([*LOSSES, "--model.class_loss", "GHMC"], "model.class_loss is given twice"),
        ([*LOSSES, "--job", "2"], "there is no --job; did you mean '--jobs'"),
        ([*LOSSES, "--jobs", "0"], "above 0"),
        (
            [*LOSSES, "--engine", "slrum"],
            "expected one of local, slurm, got slrum; did you mean 'slurm'",
        ),
        ([*LOSSES, "--run", "x"], "an ablation takes --out DIR"),
        ([*LOSSES, "--tune", "--vary", "optimizer.lr", "1", "2"], "--tune chooses optimizer.lr"),
        (["focal", *LOSSES], "unexpected 'focal': type options as --key value"),
        ([*LOSSES, "--data.val", "nope"], "cannot read the annotations"),
        ([*LOSSES, "--metric", "identity/mAP"], "no cell has an embedding head: give"),
        ([*LOSSES, "--cell", "FocalLoss_seed0"], "out has no such cell, and no other: is --out"),
    ],
)
def test_mistakes_are_one_line_before_anything_trains(
    tiny: list[str], tmp_path: Path, words: list[str], message: str, capsys: Any
) -> None:
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stop:
        ablate.main([*words, *tiny, "--out", str(out)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_whole_ablation(stand_ins: Path, tiny: list[str], tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    words = [*tiny, *LOSSES, "--seeds", "0", "1", "2", "--out", str(out), "--jobs", "2"]
    ablate.main(words)
    printed = capsys.readouterr().out
    assert "6 cells differ in nothing but" in printed
    assert "[6/6]" in printed
    assert len(begun(out)) == 6
    with open(out / "results.csv") as file:
        lines = list(csv.DictReader(file))
    assert [line["state"] for line in lines] == ["done"] * 6
    assert lines[0]["AP"] == "0.8"
    assert lines[0]["memory"] == "3.0"  # of two epochs
    markdown = (out / "table.md").read_text()
    assert "| FocalLoss | 3 |" in one_blank(markdown)
    assert "lower" in markdown
    assert "Lower than the baseline: SigmoidCrossEntropy." in markdown
    assert "INCOMPLETE" not in markdown
    assert "not tuned" in markdown
    page = (out / "index.html").read_text()
    assert "<table>" in page
    assert not [word for word in ("http://", "https://") if f'src="{word}' in page]
    assert (out / "cells" / "FocalLoss_seed0" / "hparams").is_dir()
    # a cell that it has not leaves nothing behind
    with pytest.raises(SystemExit):
        ablate.main([*words, "--cell", "FocalLos_seed0"])
    hint = "has no such cell; did you mean 'FocalLoss_seed0'?"
    assert hint in capsys.readouterr().err
    assert not list(out.glob("*/FocalLos_seed0*"))
    # again: nothing is trained, the tables are the same
    ablate.main(words)
    assert "6 of 6 cells are done already" in capsys.readouterr().out
    assert len(begun(out)) == 6
    assert (out / "table.md").read_text() == markdown
    # more seeds and more values are the same ablation
    ablate.main([*tiny, *LOSSES, "GHMC", "--seeds", "0", "3", "--out", str(out)])
    assert len(begun(out)) == 6 + 4
    # and so is the folder in another place
    moved = out.rename(tmp_path / "moved")
    ablate.main([str(moved) if word == str(out) else word for word in words])
    assert len(begun(moved)) == 6 + 4
    assert (moved / "table.md").read_text().split("`python")[0] == markdown.split("`python")[0]


def test_conditions_are_compared_within(
    stand_ins: Path, tiny: list[str], tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    words = [*tiny, *LOSSES, "--vary", "data.label_noise", "0", "0.2", "--seeds", "0", "1"]
    ablate.main([*words, "--out", str(out)])
    text = one_blank((out / "table.md").read_text())
    assert text.count("the baseline |") == 2 + 1  # one for each condition, one in its own table
    assert "| class_loss | label_noise | change of AP |" in text
    assert "| FocalLoss | 0.2 | +0.000 (+0.000 to +0.000) |" in text


def test_a_failed_cell_is_named_and_the_rest_goes_on(
    stand_ins: Path, tiny: list[str], tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    words = [*tiny, *FEW, "--vary", "optimizer.lr", "0.01", "666", "0.02", "--seeds", "0", "1"]
    ablate.main([*words, "--out", str(out)])
    printed = capsys.readouterr().out
    reason = "the loss was not finite for 20 updates in a row"
    assert f"FAILED: {reason}" in printed
    text = one_blank((out / "table.md").read_text())
    assert "INCOMPLETE: 2 cells have no figures" in text
    assert f"lr-666_seed0 failed: {reason}" in text
    assert "| 666 | 0 of 2 | none is done |" in text
    assert "| 0.02 | 2 |" in text
    ablate.main([*words, "--out", str(out)])  # and is tried again
    assert sum("lr-666_seed0" in line for line in begun(out)) == 2


def test_a_folder_of_something_else_is_refused(
    stand_ins: Path, tiny: list[str], tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    ablate.main([*tiny, *LOSSES, "--out", str(out)])
    for words, message in (
        ([*tiny, "--box_loss", "L1Loss", "GIoULoss"], "is another ablation: its axes are"),
        ([*tiny, *LOSSES, "--optimizer.lr", "0.5"], "optimizer.lr is 0.01, now it would be 0.5"),
        ([*tiny, *LOSSES, "--tune"], "its tuned are none"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            ablate.main([*words, "--out", str(out)])
        assert message in capsys.readouterr().err
    assert len(begun(out)) == 2
    with pytest.raises(SystemExit):
        ablate.main([*tiny, *LOSSES, "--out", str(tmp_path)])
    assert "holds something else" in capsys.readouterr().err


def test_tuning_chooses_before_the_comparison(
    stand_ins: Path, tiny: list[str], tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    ablate.main([*tiny, *LOSSES, "--tune", "--out", str(out), "--optimizer.lr", "0.04"])
    printed = capsys.readouterr().out
    assert "tuning optimizer.lr, model.class_loss.weight: 24 cells on images set apart" in printed
    assert len([*(out / "tuning" / "configs").glob("*.yaml")]) == 24
    text = (out / "tuning" / "configs" / "FocalLoss_try11.yaml").read_text()
    assert "holdout: 0.2" in text
    assert "lr: 0.01\n" in text
    assert "weight: 2.0" in text
    # the stand-in knows no better one: what is configured stays
    chosen = (out / "configs" / "FocalLoss_seed0.yaml").read_text()
    assert "lr: 0.04\n" in chosen
    assert "holdout: 0.0" in chosen
    assert "(tuning/table.md): FocalLoss 0.04, 1.0; " in (out / "table.md").read_text()
    assert "chosen for FocalLoss: optimizer.lr 0.04" in (out / "tuning" / "table.md").read_text()


def test_a_candidate_that_diverges_is_left_and_one_that_is_interrupted_goes_on(
    stand_ins: Path, tiny: list[str], tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    words = [*tiny, *FEW, "--vary", "model.norm", "group", "--tune", "--optimizer.lr", "333"]
    train = (stand_ins / "train.py").read_text()
    stop = 'if config["optimizer"]["lr"] == 83.25: os.kill(os.getpid(), 15)\n'
    (stand_ins / "train.py").write_text(train.replace("for epoch in", f"{stop}for epoch in"))
    with pytest.raises(SystemExit):
        ablate.main([*words, "--out", str(out)])
    assert "the search is not over: type the same command again" in capsys.readouterr().err
    assert not (out / "cells").is_dir() or not [*(out / "cells").iterdir()]
    (stand_ins / "train.py").write_text(train)
    for _ in range(2):  # again: neither is the search repeated
        ablate.main([*words, "--out", str(out)])
    lines = [line.split()[0] for line in begun(out / "tuning")]
    assert sorted(lines) == sorted([*(f"norm-group_try{k}" for k in (0, 1, 2, 2, 3, 3))])
    assert "666 failed" in one_blank((out / "tuning" / "table.md").read_text()).replace(" |", "")


def test_a_search_goes_on_beyond_its_grid_until_the_comparison_has_begun(
    stand_ins: Path, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = (stand_ins / "eval.py").read_text()
    rising = 'min(config["optimizer"]["lr"], 0.3)'
    (stand_ins / "eval.py").write_text(evaluate.replace("1 - 1 / missed", rising))
    words = [*tiny, *FEW, "--vary", "model.norm", "group", "--tune", "--optimizer.lr", "0.04"]
    words += ["--out", str(tmp_path / "out")]
    for _ in range(2):  # again: the search finds what it found
        ablate.main(words)
        assert len(begun(tmp_path / "out" / "tuning")) == 4 + 3  # 0.16, 0.32, and 0.64: no better
        assert "lr: 0.32\n" in (tmp_path / "out/configs/norm-group_seed0.yaml").read_text()
    # one that was over before is not walked on from: its cells were trained with its choice
    words[-1] = str(tmp_path / "older")
    with monkeypatch.context() as older:
        older.setattr(ablate, "widen", lambda *_: [])
        ablate.main(words)
    ablate.main([*words, "--seeds", "0", "1"])
    assert len(begun(tmp_path / "older" / "tuning")) == 4
    assert "lr: 0.08\n" in (tmp_path / "older/configs/norm-group_seed1.yaml").read_text()


def test_tuning_does_not_see_the_images_of_the_comparison(
    stand_ins: Path, tiny: list[str], tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    with pytest.raises(SystemExit):
        ablate.main([*tiny, *LOSSES, "--tune", "--data.holdout", "0.3", "--out", str(out)])
    assert "--tune would choose on the images" in capsys.readouterr().err
    assert not out.exists()


def test_a_killed_ablation_goes_on(
    stand_ins: Path, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 of the whole process group in the middle of a cell, then the same again."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    words = [*tiny, *LOSSES, "--trainer.max_epochs", "6", "--seeds", "0", "1"]
    ablate.main([*words, "--out", str(whole)])
    program = f"""
import sys
from pathlib import Path
from detector.ablation import cells
from scripts import ablate
from tests.test_grid import grid, losses
cells.ROOT = Path({str(stand_ins)!r})
ablate.main(sys.argv[1:])
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "STAND_IN_SECONDS": "0.4"}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words, "--out", str(out)],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    second = out / "cells" / "SigmoidCrossEntropy_seed0"
    deadline = time.monotonic() + 240  # a machine may have other work
    while count_epochs(second) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = count_epochs(second)
    assert read_outcome(out, "FocalLoss_seed0").state == "done"
    assert read_outcome(out, second.name).state == "not yet run"
    ablate.main([*words, "--out", str(out)])
    lines = begun(out)
    assert [line for line in lines if line.startswith(second.name)] == [
        f"{second.name} --config None" if "OMP_NUM_THREADS" not in os.environ else lines[1],
        lines[2],
    ]
    assert "--resume" in lines[2]
    assert 2 <= done < 6
    assert len(lines) == 4 + 1
    for name in ("table.tex",):
        assert (out / name).read_text() == (whole / name).read_text()


def test_a_cell_in_other_hands_is_waited_for(
    stand_ins: Path, tiny: list[str], tmp_path: Path
) -> None:
    """The trainer of an ablation that was killed alone still works: two must not write one run."""
    out = tmp_path / "out"
    axis = Axis("model.depth", {"18": 18, "34": 34})
    cells = grid(tiny, out, axis)
    cells_module.prepare(Ablation(out, [axis], cells))
    lock = out / "logs" / f"{cells[0].name}.lock"
    seconds = 1.5
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX);"
            f"print('held', flush=True); time.sleep({seconds})",
            str(lock),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    began = time.monotonic()
    assert run_cell(out, cells[0].name).state == "done"
    assert time.monotonic() - began > 0.8 * seconds
    holder.wait()


def test_jobs_share_the_machine() -> None:
    assert make_environment(0, 1, []) == {}
    cores = os.cpu_count() or 1
    assert make_environment(1, 2, []) == {"OMP_NUM_THREADS": str(max(1, cores // 2))}
    gpus = ["0", "1"]
    third = str(max(1, cores // 3))
    assert [make_environment(k, 3, gpus) for k in range(3)] == [
        {"OMP_NUM_THREADS": third, "CUDA_VISIBLE_DEVICES": gpu} for gpu in ("0", "1", "0")
    ]


@pytest.mark.parametrize(
    ("accelerator", "names", "found"),
    [("auto", None, ["0", "1"]), ("gpu", "3,5", ["3", "5"]), ("cpu", None, [])],
)
def test_gpus_are_for_cells_that_train_on_them(
    accelerator: str, names: str | None, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if names:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    cell: Any = SimpleNamespace(config={"trainer": {"accelerator": accelerator}})
    assert visible_gpus([cell]) == found


def test_slurm_gets_a_script_that_runs_each_cell(
    stand_ins: Path, tiny: list[str], tmp_path: Path, capsys: Any
) -> None:
    """The script is run by bash with the variable that SLURM sets."""
    out = tmp_path / "out"
    words = [*tiny, *LOSSES, "--out", str(out)]
    (stand_ins / "scripts" / "ablate.py").write_text(
        "import sys; from pathlib import Path; from detector.ablation import cells;"
        f"from scripts import ablate; cells.ROOT = Path({str(stand_ins)!r}); ablate.main()"
    )
    with pytest.raises(SystemExit, match=r"^0$"):  # nothing is done yet, which is no error
        ablate.main([*words, "--engine", "slurm"])
    printed, errors = capsys.readouterr()
    assert errors == ""
    assert f"2 cells are waiting: sbatch {out / 'slurm.sh'}" in printed
    text = (out / "slurm.sh").read_text()
    assert "#SBATCH --array=1-2%1" in text
    for task in ("1", "2"):
        done = subprocess.run(
            ["bash", str(out / "slurm.sh")],
            env={**os.environ, "SLURM_ARRAY_TASK_ID": task, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    ablate.main([*words, "--engine", "slurm"])
    assert "2 of 2 cells are done already" in capsys.readouterr().out
    assert (out / "table.md").is_file()
    assert write_slurm(Ablation(out, [], []), 1).is_file()


def test_losses_start_from_the_same_weights(tiny: list[str], tmp_path: Path) -> None:
    """All of them but what a loss itself decides: a logit of the background, and the bias."""
    from detector.run.assemble import assemble

    names = ["FocalLoss", "SigmoidCrossEntropy", "BalancedCrossEntropy", "GHMC"]
    nets, states = [], []
    for cell in grid(tiny, tmp_path, losses(*names, "SoftmaxCrossEntropy")):
        config = {**cell.config, "data": {**cell.config["data"], "classes": ["a", "b"]}}
        pl.seed_everything(config["seed"], workers=True, verbose=False)
        nets.append(assemble(config).net.state_dict())
        states.append(torch.get_rng_state())
    for net in nets[1:]:
        for name, value in nets[0].items():
            found = net[name]
            if value.shape != found.shape and name.endswith("output.weight"):  # 2 of 3 logits
                value = value.view(9, 2, *value.shape[1:])
                found = found.view(9, 3, *found.shape[1:])[:, :2]
            if name != "class_head.output.bias":
                assert torch.equal(value, found), name
    assert all(torch.equal(states[0], state) for state in states)  # and go on with the same draws


def test_losses_see_the_same_images_in_the_same_order(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Augmented pixels, boxes and ids of every training batch, of real trainings."""
    import train
    from detector.module import Detector

    seen: list[list[torch.Tensor]] = []
    step = Detector.training_step

    def watched(self: Any, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        seen[-1] += [batch[name].clone() for name in ("image_ids", "images", "boxes")]
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Detector, "training_step", watched)
    changed = {"trainer.max_epochs": 2, "data.color": 0.5, "data.zoom": 0.3}
    changed |= {"data.label_noise": 0.3, "trainer.check_val_every_n_epoch": 3}
    axis = losses("FocalLoss", "SoftmaxCrossEntropy")
    for cell in grid(tiny, tmp_path, axis, **changed):
        seen.append([])
        train.train(cell.config, "cell")
    assert len(seen[0]) == 3 * 2 * 4
    for one, other in zip(*seen, strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_real_cells_survive_a_kill(tiny: list[str], tmp_path: Path, capsys: Any) -> None:
    """Two losses x one seed, real trainings: killed after the first epoch of the second cell, the
    table is that of an uninterrupted ablation to the last digit."""
    words = [*tiny, *LOSSES, "--trainer.max_epochs", "4"]
    tables = []
    for name in ("whole", "killed"):
        out = tmp_path / name
        command = [sys.executable, "scripts/ablate.py", *words, "--out", str(out)]
        if name == "killed":
            process = subprocess.Popen(
                command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL
            )
            deadline = time.monotonic() + 240
            while count_epochs(out / "cells" / "SigmoidCrossEntropy_seed0") < 1:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        rows = json.loads((out / "cells/SigmoidCrossEntropy_seed0/metrics.json").read_text())
        figures = [
            {key: value for key, value in line.items() if key.startswith("val/")}
            for line in rows["epochs"]
        ]
        with open(out / "results.csv") as file:
            tables.append((figures, [line["AP"] for line in csv.DictReader(file)]))
    assert tables[0] == tables[1]
