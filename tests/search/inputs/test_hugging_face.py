"""Folders of Hugging Face models: loaded for a task, exported with what they read, searched with data as a file is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfront.core import Array, ModelError, UsageError
from bitfront.lowering.calibration import run_network
from bitfront.search.cli import main
from bitfront.search.inputs.loading import load, load_network, open_source
from bitfront.search.inputs.networks.tasks import TASKS
from bitfront.search.inputs.source import Source
from tests.references import INTERPRETER

TEXT: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
IMAGE: dict[str, Any] = {
    **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    **{"image_size": 16, "patch_size": 8, "num_labels": 4},
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No progress bars of saving."""
    transformers = pytest.importorskip("transformers", reason="needs the extra 'transformers'")
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


def saved(folder: Path, kind: str, config: str, **fields: Any) -> Path:
    """A small network with random weights, as save_pretrained writes it."""
    import torch
    import transformers

    torch.manual_seed(0)
    getattr(transformers, kind)(getattr(transformers, config)(**fields)).save_pretrained(folder)
    return folder


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A classifier of text, with its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = saved(tmp_path / "bert", "BertForSequenceClassification", "BertConfig", **TEXT, num_labels=3)
    words = {"[PAD]": 0, "[UNK]": 1, **{f"w{number}": number + 2 for number in range(50)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def source_of(folder: Path, task: str, **more: Any) -> Source:
    return Source(workload=f"hf:{folder}", task=task, **more)


@pytest.mark.parametrize(
    ("task", "kind", "config", "fields", "inputs", "outputs"),
    [
        ("text-classification", "BertForSequenceClassification", "BertConfig", TEXT, "ids mask types", "logits"),
        ("token-classification", "BertForTokenClassification", "BertConfig", TEXT, "ids mask types", "logits"),
        ("fill-mask", "BertForMaskedLM", "BertConfig", TEXT, "ids mask types", "logits"),
        (
            "question-answering",
            "BertForQuestionAnswering",
            "BertConfig",
            TEXT,
            "ids mask types",
            "start_logits end_logits",
        ),
        ("text-generation", "LlamaForCausalLM", "LlamaConfig", TEXT, "ids mask", "logits"),
        ("image-classification", "ViTForImageClassification", "ViTConfig", IMAGE, "pixels", "logits"),
    ],
)
def test_tasks(
    task: str, kind: str, config: str, fields: dict[str, Any], inputs: str, outputs: str, tmp_path: Path
) -> None:
    """The export answers as the model does, tokens of any number and padded, and keeps no cache of past tokens."""
    import torch
    import transformers

    folder = saved(tmp_path / "net", kind, config, **fields)
    reference, _ = load_network(source_of(folder, task))
    names = {"ids": "input_ids", "mask": "attention_mask", "types": "token_type_ids", "pixels": "pixel_values"}
    assert list(reference.input_shapes) == [names[name] for name in inputs.split()]
    assert reference.output_names == tuple(outputs.split())
    mask = np.ones((3, 11), np.int64)
    mask[1, 6:] = 0
    generator = np.random.default_rng(1)
    values: dict[str, Array] = {
        "input_ids": generator.integers(2, 60, (3, 11)),
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(mask),
        "pixel_values": generator.normal(size=(3, 3, 16, 16)).astype(np.float32),
    }
    feeds = {name: values[name] for name in reference.input_shapes}
    found = run_network(reference.proto, feeds, INTERPRETER)
    model = getattr(transformers, kind).from_pretrained(folder).eval()
    with torch.no_grad():
        answer = model(**{name: torch.from_numpy(value) for name, value in feeds.items()})
    for name, array in zip(reference.output_names, found, strict=True):
        wanted = answer[name].numpy()
        seen = mask[:, :, None] == 1 if wanted.ndim == 3 else np.ones_like(wanted, bool)
        np.testing.assert_allclose(array * seen, wanted * seen, atol=1e-4)


def test_layers_are_module_paths(bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As named_modules has them."""
    assert main(["inspect", "--workload", f"hf:{bert}", "--task", "text-classification"]) == 0
    told = capsys.readouterr().out
    assert "bert.encoder.layer.0.attention.self.query " in told
    assert "bert.encoder.layer.1.output.dense " in told


def test_text_through_its_tokenizer(bert: Path, tmp_path: Path) -> None:
    """A text file is calibration and evaluation, by the tokenizer in the folder."""
    lines = [" ".join(f"w{(3 * row + place) % 50}" for place in range(3 + row % 5)) for row in range(12)]
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "labels.txt").write_text("\n".join(str(row % 3) for row in range(12)), encoding="utf-8")
    texts = str(tmp_path / "texts.txt")
    labels = (("eval:labels", str(tmp_path / "labels.txt")),)
    source = source_of(bert, "text-classification", calibration=texts, evaluation=texts, data_options=labels)
    opened = open_source(source)
    assert opened.name == "bert"
    workload, reference = load(opened, None)
    assert workload.calibration["input_ids"].shape == (12, 7)
    assert set(reference.input_shapes) == {"input_ids", "attention_mask", "token_type_ids"}
    assert list(workload.evaluation.labels) == [row % 3 for row in range(12)]


def test_search_and_apply(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of a file decide which inputs there are; a config of the run gives its model again without them."""
    monkeypatch.chdir(tmp_path)
    ids = np.random.default_rng(0).integers(2, 60, (16, 9))
    np.savez("calib.npz", input_ids=ids, attention_mask=np.ones_like(ids))
    np.savez("eval.npz", input_ids=ids, attention_mask=np.ones_like(ids), labels=np.arange(16) % 3)
    network = ["--workload", f"hf:{bert}", "--task", "text-classification"]
    data = ["--calib", "calib.npz", "--eval", "eval.npz", "--max-drop", "0.9", "--trials", "2", "--quiet"]
    assert main([*network, *data, "--precisions", "int8", "--out", "run"]) == 0
    assert main(["apply", "run/configs/int8.json", *network, "-o", "out.onnx"]) == 0
    assert Path("out.onnx").read_bytes() == Path("run/models/int8.onnx").read_bytes()


def test_a_pooler_that_was_never_trained_is_left_out(tmp_path: Path) -> None:
    """A network trained for another task gives its features alone."""
    folder = saved(tmp_path / "net", "BertForTokenClassification", "BertConfig", **TEXT)
    reference, _ = load_network(source_of(folder, "feature-extraction"))
    assert reference.output_names == ("last_hidden_state",)


@pytest.mark.parametrize(
    ("spoil", "task", "kind", "message"),
    [
        (
            lambda _: None,
            "fill-mask",
            ModelError,
            r"has no weights of 'cls.predictions.bias' and \d others, which Bert",
        ),
        (lambda _: None, "image-classification", ModelError, "cannot load .* for image-classification: Unrecognized"),
        (lambda folder: (folder / "model.safetensors").unlink(), "text-classification", ModelError, "cannot load"),
        (lambda folder: (folder / "config.json").unlink(), "text-classification", ModelError, "has no config.json"),
        (lambda folder: shutil.rmtree(folder), "text-classification", ModelError, "has no config.json"),
        (lambda _: None, "translation", UsageError, "unknown task 'translation'"),
        (lambda _: None, None, UsageError, "--task: is missing"),
    ],
    ids=["no head", "another kind", "no weights", "no config", "no folder", "unknown task", "no task"],
)
def test_folders_that_do_not_fit(
    spoil: Callable[[Path], object], task: str | None, kind: type[Exception], message: str, bert: Path
) -> None:
    """They are refused by name, rather than searched with random weights."""
    spoil(bert)
    with pytest.raises(kind, match=message):
        load_network(Source(workload=f"hf:{bert}", task=task))


def test_every_task_is_one_of_transformers() -> None:
    """Its class is there."""
    import transformers

    assert all(hasattr(transformers, name) for name in TASKS.values())
