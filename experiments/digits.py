"""The demonstration's workload: a small residual CNN trained on the spot on scikit-learn's 8×8 digits.

It needs no files. Half of the 1,797 images train the network, calibrate it and serve its passes, the other half
evaluates it. The trained weights are kept under the user's cache folder, named by a digest of the training's
settings, the network's source and torch's version, so that a changed network is trained anew; a damaged file is
trained over.

Training is seeded and runs on a fixed number of threads: the same machine and torch give the same weights.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bitfront.core import Inputs, Labelled, Metric, OutputError, WorkloadError, digest, top1, write_bytes
from bitfront.experiments.data import INPUT_NAME
from bitfront.experiments.networks import digits as network_source
from bitfront.experiments.networks.digits import DigitsNet

THREADS = 2
SPLIT_SEED = 7
STUDENT_CHANNELS = (16, 32)  # of 64 and 96: a tenth of the multiply-adds
_EXTRA = "install the 'demo' extra"


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Settings of the network's training.

    Attributes:
        epochs: Passes over the training half.
        batch_size: Images a step.
        learning_rate: Peak of the one-cycle schedule.
        weight_decay: Decoupled decay (AdamW).
        seed: Of the initial weights and the order of the images.
    """

    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    seed: int = 0


class DigitsWorkload:
    """The demonstration's ``Workload``; data and network are made when first read.

    Args:
        training: How the network is trained.
        cache: Where trained weights are kept; None is ``bitfront/`` in the user's cache folder.
    """

    name = "digits"
    # FP32 is well above 5 ms for 28 images on one server core, all-INT8 well below.
    batch_size = 28
    metric: Metric = top1
    augment: Mapping[str, float] = MappingProxyType({"shift": 1})  # a mirrored digit is another one, or none

    def __init__(self, training: Training | None = None, cache: Path | None = None) -> None:
        self._training = training or Training()
        self._cache = cache

    @cached_property
    def model(self) -> nn.Module:
        """The trained network, in evaluation mode."""
        folder = self._cache if self._cache is not None else user_cache()
        return trained_network(self._training, self._halves[0], folder)

    @property
    def calibration(self) -> Inputs:
        """The training half's images, (898, 1, 8, 8)."""
        return self._halves[0].inputs

    @property
    def evaluation(self) -> Labelled:
        """The evaluation half, 899 images with labels."""
        return self._halves[1]

    @property
    def training(self) -> Labelled:
        """The training half, with its labels."""
        return self._halves[0]

    @cached_property
    def students(self) -> Sequence[nn.Module]:
        """A narrow network of the same shape, with fresh seeded weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._training.seed)
            return (DigitsNet(*STUDENT_CHANNELS).eval(),)

    @cached_property
    def _halves(self) -> tuple[Labelled, Labelled]:
        return load_halves()


def load_halves() -> tuple[Labelled, Labelled]:
    """Training and evaluation half, images float32 (n, 1, 8, 8) in 0 to 1.

    Raises:
        WorkloadError: If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise WorkloadError("the digits workload needs scikit-learn, which is not installed", _EXTRA) from error
    bunch = load_digits()
    images = np.asarray(bunch.images, np.float32)[:, None] / np.float32(16)
    labels = np.asarray(bunch.target, np.int64)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    halves = (order[: len(order) // 2], order[len(order) // 2 :])
    first, second = (Labelled(inputs={INPUT_NAME: images[rows]}, labels=labels[rows]) for rows in halves)
    return first, second


def user_cache() -> Path:
    """``bitfront/`` in ``XDG_CACHE_HOME``, else in ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bitfront"


def trained_network(training: Training, data: Labelled, cache: Path) -> DigitsNet:
    """The network from ``cache``, else trained on ``data`` and kept there.

    A cache that cannot be written only costs training it again the next time.
    """
    path = cache / f"digits-{_key(training, data)}.safetensors"
    state = _read(path)
    if state is None:
        state = train(training, data)
        with contextlib.suppress(OutputError):
            _write(path, state)
    network = DigitsNet()
    network.load_state_dict(state)
    return network.eval()


def train(training: Training, data: Labelled) -> dict[str, Tensor]:
    """Train a fresh network; torch's global random state and thread count are left as they were.

    Returns:
        Its state dictionary.
    """
    images = torch.from_numpy(np.asarray(data.inputs[INPUT_NAME], np.float32))
    labels = torch.from_numpy(np.asarray(data.labels, np.int64))
    with _threads(THREADS), torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = DigitsNet().train()
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
        steps = training.epochs * -(-len(labels) // training.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, training.learning_rate, total_steps=steps)
        for _ in range(training.epochs):
            order = torch.randperm(len(labels))
            for start in range(0, len(labels), training.batch_size):
                rows = order[start : start + training.batch_size]
                loss = functional.cross_entropy(network(images[rows]), labels[rows])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _key(training: Training, data: Labelled) -> str:
    source = Path(network_source.__file__).read_bytes()
    return digest(asdict(training), THREADS, source, str(torch.__version__), dict(data.inputs), data.labels)[:32]


def _checksum(state: dict[str, Tensor]) -> str:
    return digest({name: tensor.numpy() for name, tensor in state.items()})


def _read(path: Path) -> dict[str, Tensor] | None:
    """The state kept at ``path``; None if there is none or it is damaged."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise WorkloadError("the digits workload needs safetensors, which is not installed", _EXTRA) from error
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            checksum = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    return state if checksum == _checksum(state) else None


def _write(path: Path, state: dict[str, Tensor]) -> None:
    from safetensors.torch import save

    write_bytes(path, save(state, metadata={"sha256": _checksum(state)}))
