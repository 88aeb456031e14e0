"""Quantisation-aware training: the trained module is the artifact, and training is repeatable and worth it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from bitfront.core import ConfigError, ContentStore, LoweringError, ModelError, PrecisionConfig, Scheme
from bitfront.lowering.apply import apply_config
from bitfront.passes.checkpoint import StoredCheckpoint
from bitfront.passes.data import TrainingData
from bitfront.passes.qat import TRAINING, Qat
from bitfront.passes.qat_result import QatResult, with_values
from bitfront.passes.train import Ended, Progress, Supervision
from tests.lowering.candidates import lowerer_of, sqnr_db, uniform, with_bug
from tests.lowering.topologies import TOPOLOGIES, inputs_of
from tests.passes.qat_nets import (
    QUICK,
    artifact_of,
    digits,
    digits_lowerer,
    ran,
    schemes_of,
    simulated,
    trained,
    unlabelled,
    written_by,
)

SETTINGS = {
    "w8a8": (("int8:mse",), Qat(training=QUICK)),
    "w4a8": (("int4:gptq",), Qat(training=QUICK)),
    "w3a8": (("int4:mse",), Qat(training=QUICK, int4_bits=3)),
    "mixed": (("int8:mse", "fp32", "int4:gptq", "fp16", "int4:mse", "int8:mse:weight-only"), Qat(training=QUICK)),
}
FLOOR_DB = 40.0
# A value that lies on the border between two integers may fall to either side, whatever computes it: kernels of
# different processors add up in different orders. A sample whose two best classes are that near may change its class.
SAMPLES_APART = 3
# Operators a topology has that training does not know.
UNKNOWN = {"captured": "ReduceMax"}


def check_agreement(result: QatResult, model: bytes) -> None:
    """The oracle: the module and the artifact on ONNX Runtime give the same outputs and the same classes."""
    inputs = digits()[1].inputs
    check_outputs(simulated(result.network, inputs)[0], ran(model, inputs)[0])


def check_outputs(expected: NDArray[Any], found: NDArray[Any]) -> None:
    """Nearly equal logits, and the same class for all samples but a few."""
    assert sqnr_db(expected, found) >= FLOOR_DB
    apart = np.count_nonzero(expected.argmax(axis=1) != found.argmax(axis=1))
    assert apart <= max(SAMPLES_APART, len(expected) // 200)


@pytest.mark.parametrize("setting", SETTINGS)
def test_module_and_artifact_agree(setting: str) -> None:
    """What was trained is what ONNX Runtime runs, whatever the schemes."""
    result, schemes = trained(*SETTINGS[setting])
    check_agreement(result, artifact_of(result, digits_lowerer(), schemes))


@pytest.mark.parametrize(
    ("stored", "position", "factor", "shift"),
    [
        pytest.param("widen.pointwise.weight_8", 1, 1.1, 0, id="weight-scale"),
        pytest.param("widen.pointwise.weight_8", 0, -1, 0, id="codes-negated"),
        pytest.param("relu_1_q", 1, 1.05, 0, id="activation-scale"),
        pytest.param("relu_1_q", 2, 1, 2, id="zero-point"),
    ],
)
def test_planted_bugs_are_seen(stored: str, position: int, factor: float, shift: float) -> None:
    """The oracle of agreement sees an artifact that is not what was trained."""
    lowerer = digits_lowerer()
    options = Qat(training=replace(QUICK, steps=0))
    schemes = schemes_of(lowerer, "int8:mse")
    result = options.apply(lowerer, schemes, unlabelled())
    model = artifact_of(result, lowerer, schemes)
    check_agreement(result, model)
    with pytest.raises(AssertionError):
        check_agreement(result, with_bug(model, stored, position, factor=factor, shift=shift))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, "int4:gptq") for name in sorted(set(TOPOLOGIES) - set(UNKNOWN))),
        *((name, "int8:mse") for name in ("clips", "two_consumers", "padded_shortcut", "gemm")),
    ],
)
def test_every_topology_agrees(name: str, text: str) -> None:
    """Folded, moved, widened, shared, transposed: fake quantisation stands where the dialect puts Q/DQ."""
    lowerer = lowerer_of(name)
    schemes = uniform(lowerer, text)
    data = TrainingData(inputs=inputs_of(lowerer.reference))
    result = Qat(training=replace(QUICK, steps=2, batch_size=8)).apply(lowerer, schemes, data)
    inputs = inputs_of(lowerer.reference, seed=5)
    found = ran(artifact_of(result, lowerer, schemes), inputs)
    for expected, actual in zip(simulated(result.network, inputs), found, strict=True):
        assert sqnr_db(expected, actual) >= FLOOR_DB


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_operators_are_named(name: str) -> None:
    """A network that cannot be trained is refused with the operator that is in the way."""
    lowerer = lowerer_of(name)
    with pytest.raises(LoweringError, match=f"operator {UNKNOWN[name]} .* is not handled"):
        Qat().network(lowerer, uniform(lowerer, "int8:mse"))


def test_training_brings_outputs_closer() -> None:
    """At 3 bits the trained network is closer to FP32 on images held back than the rounded one was."""
    lowerer, inputs = digits_lowerer(), digits()[1].inputs
    schemes = schemes_of(lowerer, "int4:mse")
    expected = ran(lowerer.lower(schemes_of(lowerer, "fp32")).data, inputs)[0]
    options = Qat(training=replace(QUICK, steps=60), int4_bits=3)
    before = simulated(options.network(lowerer, schemes), inputs)[0]
    after = simulated(options.apply(lowerer, schemes, unlabelled()).network, inputs)[0]
    assert sqnr_db(expected, after) >= sqnr_db(expected, before) + 2


def test_three_bits_are_eight_levels() -> None:
    """At 3 bits the artifact's 4-bit integers stay within −4…3, and use both ends."""
    result, schemes = trained(*SETTINGS["w3a8"])
    proto = onnx.load_from_string(artifact_of(result, digits_lowerer(), schemes))
    integers = [
        numpy_helper.to_array(tensor).astype(np.int8)
        for tensor in proto.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT4
    ]
    assert integers
    assert min(int(part.min()) for part in integers) == -4
    assert max(int(part.max()) for part in integers) == 3


def test_the_seed_decides() -> None:
    """The same seed gives the same weights to the bit, another one others."""
    options = Qat(training=replace(QUICK, steps=5))
    first, again = (trained(("int4:gptq",), options)[0] for _ in range(2))
    other, _ = trained(("int4:gptq",), replace(options, training=replace(options.training, seed=1)))
    assert first.reference.fingerprint == again.reference.fingerprint != other.reference.fingerprint
    assert first.ranges == again.ranges != other.ranges


def test_a_killed_training_goes_on() -> None:
    """Stopped in the middle and resumed from its checkpoint, a training ends with the same bits."""
    lowerer = digits_lowerer()
    schemes = schemes_of(lowerer, "int4:gptq", "fp32")
    options = Qat(training=replace(QUICK, steps=8))
    whole = options.apply(lowerer, schemes, unlabelled())
    slot = StoredCheckpoint(ContentStore(None), "qat")

    def stop(module: torch.nn.Module, progress: Progress) -> bool:
        assert not module.training
        return progress.step == 4

    half = options.apply(lowerer, schemes, unlabelled(), supervision=Supervision(every=2, checkpoint=slot, watch=stop))
    assert half.trained.ended is Ended.STOPPED
    resumed = options.apply(lowerer, schemes, unlabelled(), supervision=Supervision(every=2, checkpoint=slot))
    assert half.reference.fingerprint != whole.reference.fingerprint == resumed.reference.fingerprint
    assert resumed.ranges == whole.ranges


def test_a_config_repeats_the_artifact() -> None:
    """The trained network with the config's text gives the artifact's bytes, without calibration inputs or cache."""
    result, schemes = trained(*SETTINGS["mixed"])
    writer = written_by(result, digits_lowerer())
    config = PrecisionConfig.from_json(writer.config(schemes).to_json(), "config")
    again = apply_config(
        config, result.reference, calibration=None, store=ContentStore(None), allow_new_weights=False
    ).data
    assert again == writer.lower(schemes).data


def test_scales_are_for_schemes_that_hold_the_codes() -> None:
    """Weights trained at 8 bits are rounded anew at 4; those trained at 4 keep their values at 8."""
    lowerer = digits_lowerer()
    eight, four = schemes_of(lowerer, "int8:mse"), schemes_of(lowerer, "int4:mse")
    still = Qat(training=replace(QUICK, steps=0))
    from_eight = written_by(still.apply(lowerer, eight, unlabelled()), lowerer)
    from_four = written_by(still.apply(lowerer, four, unlabelled()), lowerer)
    assert from_eight.config(four).scales == {}
    assert set(from_four.config(eight).scales) == set(eight)
    inputs = digits()[1].inputs
    outputs = [ran(from_four.lower(schemes).data, inputs)[0] for schemes in (four, eight)]
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_labels_take_part() -> None:
    """With labels in the loss the training gives other weights than without."""
    lowerer, data = digits_lowerer(), digits()[0]
    schemes = schemes_of(lowerer, "int4:mse")
    labelled = TrainingData(inputs=data.inputs, labels=data.labels)
    plain, mixed = (Qat(training=replace(QUICK, steps=3), labels=share) for share in (0.0, 0.5))
    found = [options.apply(lowerer, schemes, labelled).reference.fingerprint for options in (plain, mixed)]
    assert found[0] != found[1]
    with pytest.raises(ConfigError, match="labels above 0 need labelled data"):
        mixed.apply(lowerer, schemes, unlabelled())


class _Elsewhere(torch.nn.Module):
    """TeacherCache with the same logits for every image."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.linspace(-8, 8, classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits + torch.zeros(len(images), 1)


def test_another_teacher_is_learned_from() -> None:
    """The network comes nearer to the teacher given, which stays as it is; one with other classes is refused."""
    lowerer, inputs = digits_lowerer(), digits()[1].inputs
    schemes = schemes_of(lowerer, "int4:mse")
    options, teacher = Qat(training=replace(QUICK, steps=40)), _Elsewhere(10).train()
    wanted = simulated(_Elsewhere(10), inputs)[0]
    result = options.apply(lowerer, schemes, unlabelled(), teacher=teacher)
    before, after = (
        float(np.square(simulated(network, inputs)[0] - wanted).mean())
        for network in (options.network(lowerer, schemes), result.network)
    )
    assert after < 0.8 * before
    assert teacher.training
    assert teacher.logits.requires_grad
    with pytest.raises(
        ModelError, match=r"network's outputs have the shapes \[\(2, 10\)\], the teacher's \[\(2, 9\)\]"
    ):
        options.apply(lowerer, schemes, unlabelled(), teacher=_Elsewhere(9))


def test_blocks_are_refused() -> None:
    """Weights in blocks are refused by the layer's name."""
    lowerer = lowerer_of("gemm")
    with pytest.raises(LoweringError, match=r"layer 'a': weights in blocks \(int4:mse:block32\) cannot be trained"):
        Qat().network(lowerer, uniform(lowerer, "int4:mse:block32"))


def test_options_are_plain_json() -> None:
    """The pass is its options."""
    options = Qat(training=replace(TRAINING, steps=7, seed=3), temperature=2.0, int4_bits=3)
    assert Qat.from_json(options.to_json()) == options


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", 0.0), ("labels", 1.5), ("int4_bits", 5), ("scale_rate", -1.0)]
)
def test_wrong_options_are_refused(field: str, value: float) -> None:
    """An option out of range is named with what was expected."""
    with pytest.raises(ConfigError, match=f"pass 'qat': expected {field} .*, got {value}"):
        Qat.from_json({field: value})


def test_with_values_keeps_the_architecture() -> None:
    """A trained network has the architecture of the one it came from, and another fingerprint."""
    reference = lowerer_of("chain").reference
    changed = with_values(reference, {"a.bias": np.zeros(16, np.float32)})
    assert changed.architecture == reference.architecture
    assert changed.fingerprint != reference.fingerprint


@pytest.mark.slow
@pytest.mark.data
def test_resnet20_agrees(data_folder: object) -> None:
    """All layers of ResNet-20 at 4-bit weights and 8-bit activations: module and artifact agree on test images."""
    from pathlib import Path

    from bitfront.core import CalibrationSettings
    from bitfront.experiments.workloads import resnet20
    from bitfront.lowering.dialects.registry import get_dialect
    from bitfront.lowering.lowerer import Lowerer
    from tests.references import export_reference

    workload = resnet20(Path(str(data_folder)))
    assert isinstance(workload.model, torch.nn.Module)
    reference = export_reference(workload.model, workload.calibration, name="resnet20")
    lowerer = Lowerer(
        reference, get_dialect("ort-cpu"), workload.calibration, CalibrationSettings(), ContentStore(None)
    )
    schemes = {layer.name: Scheme.parse("int4:gptq") for layer in lowerer.quantisable.layers}
    result = Qat(training=replace(TRAINING, steps=4)).apply(lowerer, schemes, TrainingData(inputs=workload.calibration))
    inputs = workload.evaluation.part(0, 1000).inputs
    check_outputs(simulated(result.network, inputs)[0], ran(artifact_of(result, lowerer, schemes), inputs)[0])
