"""Configs rebuild their artifacts byte for byte, and refuse what they were not made for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitfront.core import (
    CalibrationSettings,
    ConfigError,
    ContentStore,
    DataError,
    Inputs,
    PrecisionConfig,
    Scheme,
)
from bitfront.lowering.apply import apply_config
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.reference import ReferenceModel
from tests.lowering.candidates import uniform
from tests.lowering.topologies import chain, inputs_of, reference_of
from tests.references import make_reference


def saved(reference: ReferenceModel, inputs: Inputs, store: ContentStore, text: str) -> tuple[PrecisionConfig, bytes]:
    lowerer = Lowerer(reference, get_dialect("ort-cpu"), inputs, CalibrationSettings(samples=32), store)
    schemes = uniform(lowerer, text)
    config = PrecisionConfig.from_json(lowerer.config(schemes).to_json(), "config.json")
    return config, lowerer.lower(schemes).data


@pytest.mark.parametrize("text", ["fp16", "int8:mse", "int4:gptq"])
def test_round_trip(tmp_path: Path, text: str) -> None:
    """A config read back from JSON gives the same bytes from the run's cache, and anew from the same inputs."""
    reference = reference_of("residual")
    inputs = inputs_of(reference)
    config, model = saved(reference, inputs, ContentStore(tmp_path), text)
    again = reference_of("residual")
    assert (
        model
        == apply_config(config, again, calibration=None, store=ContentStore(tmp_path), allow_new_weights=False).data
    )
    assert (
        model == apply_config(config, again, calibration=inputs, store=ContentStore(None), allow_new_weights=False).data
    )


def test_data_driven_rounding_without_data() -> None:
    """Without cache and inputs, GPTQ cannot be repeated, and the error says what to give."""
    reference = reference_of("chain")
    config, _ = saved(reference, inputs_of(reference), ContentStore(None), "int4:gptq")
    with pytest.raises(DataError, match="needs calibration samples"):
        apply_config(config, reference, calibration=None, store=ContentStore(None), allow_new_weights=False)


def test_other_network_names_the_layers() -> None:
    """A config for another network is refused with the layers that differ."""
    reference = reference_of("chain")
    config, _ = saved(reference, inputs_of(reference), ContentStore(None), "int8:mse")
    with pytest.raises(ConfigError, match=r"another network than 'residual' \(layers not in the config: d\)"):
        apply_config(
            config, reference_of("residual"), calibration=None, store=ContentStore(None), allow_new_weights=False
        )


def test_new_weights_need_consent_and_data() -> None:
    """Fine-tuned weights are refused without --allow-new-weights; with it, everything is calibrated anew."""
    reference = reference_of("chain")
    inputs = inputs_of(reference)
    config, model = saved(reference, inputs, ContentStore(None), "int8:mse")
    proto = chain()
    for tensor in proto.graph.initializer:
        if tensor.name.endswith("weight"):
            tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) * np.float32(1.1)).tobytes()
    tuned = make_reference(proto, "tuned")
    with pytest.raises(ConfigError, match="other weights than those of 'tuned'"):
        apply_config(config, tuned, calibration=inputs, store=ContentStore(None), allow_new_weights=False)
    with pytest.raises(DataError, match="found anew"):
        apply_config(config, tuned, calibration=None, store=ContentStore(None), allow_new_weights=True)
    applied = apply_config(config, tuned, calibration=inputs, store=ContentStore(None), allow_new_weights=True).data
    assert applied != model
    alone = Lowerer(tuned, get_dialect("ort-cpu"), inputs, config.calibration, ContentStore(None))
    assert dict(alone.ranges) != dict(config.ranges), "the test says nothing otherwise"
    assert applied == alone.lower(config.layers).data


def test_other_calibration_inputs_are_refused() -> None:
    """Inputs other than the config's would give another artifact: refused."""
    reference = reference_of("chain")
    config, _ = saved(reference, inputs_of(reference), ContentStore(None), "int4:gptq")
    with pytest.raises(ConfigError, match="not those the config was made with"):
        apply_config(
            config,
            reference,
            calibration=inputs_of(reference, seed=99),
            store=ContentStore(None),
            allow_new_weights=False,
        )


def test_config_of_schemes() -> None:
    """The config holds a scheme for every layer and names no measurement."""
    reference = reference_of("chain")
    config, _ = saved(reference, inputs_of(reference), ContentStore(None), "int4:gptq")
    assert dict(config.layers) == dict.fromkeys("abc", Scheme.parse("int4:gptq"))
    assert "latency" not in config.to_json()
