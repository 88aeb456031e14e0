"""The tasks that a Hugging Face model may be loaded for, and ``hf:FOLDER`` on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bitfront.core import ModelError, UsageError
from bitfront.search.inputs.data.base import library

PREFIX = "hf:"
# --task → the class of transformers that loads a network for it.
TASKS: Mapping[str, str] = {
    "audio-classification": "AutoModelForAudioClassification",
    "automatic-speech-recognition": "AutoModelForCTC",
    "depth-estimation": "AutoModelForDepthEstimation",
    "feature-extraction": "AutoModel",
    "fill-mask": "AutoModelForMaskedLM",
    "image-classification": "AutoModelForImageClassification",
    "image-feature-extraction": "AutoModel",
    "image-segmentation": "AutoModelForSemanticSegmentation",
    "next-sentence-prediction": "AutoModelForNextSentencePrediction",
    "object-detection": "AutoModelForObjectDetection",
    "question-answering": "AutoModelForQuestionAnswering",
    "text-classification": "AutoModelForSequenceClassification",
    "text-generation": "AutoModelForCausalLM",
    "text2text-generation": "AutoModelForSeq2SeqLM",
    "token-classification": "AutoModelForTokenClassification",
}


def hf_folder(workload: str | None) -> Path | None:
    """The folder of ``hf:FOLDER``; None for other workloads."""
    return Path(workload.removeprefix(PREFIX)) if workload is not None and workload.startswith(PREFIX) else None


def check_folder(folder: Path, task: str | None) -> None:
    """Refuse what can be refused before anything is loaded.

    Raises:
        UsageError: If the task is missing or unknown, or a library is not installed.
        ModelError: If there is no such folder, or no model in it.
    """
    if task not in TASKS:
        got = "is missing" if task is None else f"unknown task '{task}'"
        raise UsageError(f"--task: {got}", f"say what '{folder}' is for: {', '.join(TASKS)}")
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"--workload: '{folder}' has no config.json, expected a folder as save_pretrained writes it",
            "name a folder on this machine; nothing is fetched from a hub",
        )
    for module in ("torch", "transformers"):
        library(module, module, "transformers", f"--workload: '{PREFIX}{folder}'")
