"""What every backend has to do. Subclass with a ``backend`` fixture; the class name starts with ``Test``."""

from __future__ import annotations

import numpy as np
import pytest

from bitfront.backends import Backend, TimingSettings, time_paired
from bitfront.core import Artifact, BackendError, Inputs, Precision, UsageError
from tests.backends import models

_X = np.array([[1, 0, 0], [0, 1, 1]], np.float32)
_Y = np.array([[11, 22], [18, 30]], np.float32)
_FEW = TimingSettings(slot_ms=0.01, max_runs=2, warmup_runs=1, min_rounds=3, max_rounds=3)


class BackendConformance:
    def test_computes_a_hand_worked_layer(self, backend: Backend) -> None:
        """A linear layer gives the outputs worked out by hand."""
        outputs = backend.compile(Artifact.onnx(models.linear()), threads=1).run({"x": _X})
        models.assert_close(outputs[0], _Y)

    def test_the_oracle_sees_a_wrong_scale(self, backend: Backend) -> None:
        """The comparison above refuses a network whose weights are off by 1 %."""
        outputs = backend.compile(Artifact.onnx(models.linear(factor=1.01)), threads=1).run({"x": _X})
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            models.assert_close(outputs[0], _Y)

    def test_computes_convolutions(self, backend: Backend) -> None:
        """Three convolutions that double, with Relu: eight times the positive part."""
        x = np.random.default_rng(0).normal(size=(2, 2, 4, 4)).astype(np.float32)
        (y,) = backend.compile(Artifact.onnx(models.convolution(3)), threads=1).run({"x": x})
        models.assert_close(y, 8 * np.maximum(x, 0))

    def test_dynamic_batch_takes_any(self, backend: Backend) -> None:
        """A network with a dynamic batch runs one sample and many, with the same result for each."""
        compiled = backend.compile(Artifact.onnx(models.linear()), threads=1)
        assert compiled.input_shapes == {"x": (None, 3)}
        together = compiled.run({"x": _X})[0]
        apart = [compiled.run({"x": _X[index : index + 1]})[0] for index in range(2)]
        models.assert_close(together, np.concatenate(apart))

    def test_fixed_batch_is_told_and_kept(self, backend: Backend) -> None:
        """A fixed batch shows in the shapes, and another one is refused by name."""
        compiled = backend.compile(Artifact.onnx(models.linear(batch=2)), threads=1)
        assert compiled.input_shapes == {"x": (2, 3)}
        assert compiled.run({"x": _X})[0].shape == (2, 2)
        with pytest.raises(BackendError, match=r"input 'x': expected shape \(2, 3\), got \(1, 3\)"):
            compiled.run({"x": _X[:1]})

    def test_several_inputs_and_outputs_keep_their_order(self, backend: Backend) -> None:
        """Inputs go by name, outputs come in the network's order."""
        compiled = backend.compile(Artifact.onnx(models.two_by_two()), threads=1)
        assert compiled.output_names == ("total", "gap")
        left, right = np.full((1, 4), 5, np.float32), np.full((1, 4), 2, np.float32)
        total, gap = compiled.run({"right": right, "left": left})
        assert (total[0, 0], gap[0, 0]) == (7, 3)

    def test_subgraphs_run(self, backend: Backend) -> None:
        """A network with branches takes the right one."""
        x = np.array([1, 2, -4, 0.5], np.float32)
        compiled = backend.compile(Artifact.onnx(models.branching()), threads=1)
        models.assert_close(compiled.run({"x": x})[0], np.cos(x), atol=1e-6)
        models.assert_close(compiled.run({"x": -x})[0], np.sin(-x), atol=1e-6)

    @pytest.mark.parametrize("model", [b"", b"no model at all"], ids=["empty", "garbage"])
    def test_garbage_is_refused(self, backend: Backend, model: bytes) -> None:
        """Bytes that are no model give a typed error that tells their number."""
        with pytest.raises(BackendError, match=f"refused a model of {len(model)} bytes"):
            backend.compile(Artifact.onnx(model), threads=1)

    def test_truncated_model_is_refused(self, backend: Backend) -> None:
        """A file cut short gives a typed error."""
        model = models.linear()
        with pytest.raises(BackendError, match="refused a model"):
            backend.compile(Artifact.onnx(model[: len(model) // 2]), threads=1)

    @pytest.mark.parametrize("files", [("model.tflite",), ("model.onnx", "weights.data")], ids=["format", "files"])
    def test_what_is_not_one_onnx_file_is_refused(self, backend: Backend, files: tuple[str, ...]) -> None:
        """Another format, or more than one file, gives a typed error that tells what came."""
        kind = "onnx" if files[0].endswith(".onnx") else "litert"
        artifact = Artifact(files=dict.fromkeys(files, models.linear()), main=files[0], format=kind)
        with pytest.raises(BackendError, match=f"got {len(files)} of format '{kind}'"):
            backend.compile(artifact, threads=1)

    def test_no_threads_are_refused(self, backend: Backend) -> None:
        """Zero threads is bad usage, not the runtime's default."""
        with pytest.raises(UsageError, match="expected a positive whole number, got 0"):
            backend.compile(Artifact.onnx(models.linear()), threads=0)

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({"z": _X}, "inputs: expected x; got z"),
            ({}, "inputs: expected x; got none"),
            ({"x": _X, "z": _X}, "inputs: expected x; got x, z"),
            ({"x": _X.astype(np.float64)}, "input 'x': expected type float32, got float64"),
            ({"x": _X.astype(np.int64)}, "input 'x': expected type float32, got int64"),
            ({"x": _X[:, :2]}, r"input 'x': expected shape \(any, 3\), got \(2, 2\)"),
            ({"x": _X[0]}, r"input 'x': expected shape \(any, 3\), got \(3,\)"),
        ],
        ids=["name", "missing", "extra", "float64", "int64", "shape", "rank"],
    )
    def test_wrong_inputs_are_named(self, backend: Backend, inputs: Inputs, message: str) -> None:
        """What is wrong with an input is said, with what was expected and what came."""
        compiled = backend.compile(Artifact.onnx(models.linear()), threads=1)
        with pytest.raises(BackendError, match=message):
            compiled.run(inputs)

    def test_runs_repeat_exactly(self, backend: Backend) -> None:
        """The same model and inputs give the same bits, in one session and in two."""
        x = np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float32)
        first, second = (backend.compile(Artifact.onnx(models.convolution(2)), threads=1) for _ in range(2))
        results = [model.run({"x": x})[0].tobytes() for model in (first, first, second)]
        assert len(set(results)) == 1

    def test_outputs_are_the_callers(self, backend: Backend) -> None:
        """A later run doesn't change an earlier one's outputs."""
        compiled = backend.compile(Artifact.onnx(models.linear()), threads=1)
        before = compiled.run({"x": _X})[0]
        compiled.run({"x": _X * 3})
        models.assert_close(before, _Y)

    def test_operators_are_listed(self, backend: Backend) -> None:
        """Every layer shows among the operators; asking twice gives the same."""
        compiled = backend.compile(Artifact.onnx(models.convolution(3)), threads=1)
        assert sum("Conv" in operator for operator in compiled.operators()) == 3
        assert compiled.operators() == compiled.operators()

    def test_fingerprint_is_stable(self, backend: Backend) -> None:
        """A fingerprint is a cache key: it doesn't change, names a runtime, and is plain JSON."""
        assert backend.fingerprint() == backend.fingerprint()
        assert backend.fingerprint().runtime
        assert set(backend.fingerprint().to_json()) == {
            "device",
            "cores",
            "instructions",
            "system",
            "runtime",
            "python",
        }

    def test_every_probe_is_answered(self, backend: Backend) -> None:
        """Something is probed, and each probe is either supported or has a note that says why not; none is both."""
        found = backend.capabilities()
        assert found.supported
        for name, supported in found.supported.items():
            assert supported != (name in found.notes)

    def test_fp32_is_never_withheld(self, backend: Backend) -> None:
        """What is withheld has a reason, and FP32 is always there."""
        withheld = backend.unprofitable_precisions()
        assert Precision.FP32 not in withheld
        assert all(withheld.values())

    def test_the_stand_in_reads_the_same_dialect(self, backend: Backend) -> None:
        """What sensitivities are scored on runs this backend's artifacts, and stands in for itself."""
        proxy_backend = backend.proxy_backend()
        outputs = proxy_backend.compile(Artifact.onnx(models.linear()), threads=1).run({"x": _X})
        models.assert_close(outputs[0], _Y)
        assert proxy_backend.proxy_backend().name == proxy_backend.name

    def test_a_batch_asked_for_runs(self, backend: Backend) -> None:
        """A network compiled for a batch runs that batch, whether its shape then says so or stays dynamic."""
        compiled = backend.compile(Artifact.onnx(models.linear()), threads=1, batch_size=2)
        assert compiled.input_shapes in ({"x": (None, 3)}, {"x": (2, 3)})
        models.assert_close(compiled.run({"x": _X})[0], _Y)

    def test_timers_time_each_run(self, backend: Backend) -> None:
        """A timer gives one positive time a run, and refuses wrong inputs at the latest when it runs."""
        compiled = backend.compile(Artifact.onnx(models.linear()), threads=1, batch_size=2)
        times = compiled.timer({"x": _X}, backend.clock)(3)
        assert times.shape == (3,)
        assert (times > 0).all()
        with pytest.raises(BackendError, match="input"):
            compiled.timer({"z": _X}, backend.clock)(1)

    def test_what_is_told_of_layers_is_sound(self, backend: Backend) -> None:
        """A profile names operators and non-negative times; a footprint counts bytes; an engine is bytes or nothing."""
        compiled = backend.compile(Artifact.onnx(models.convolution(2)), threads=1, batch_size=1)
        for layer in compiled.profile({"x": np.ones((1, 2, 4, 4), np.float32)}):
            assert layer.kind
            assert layer.latency_us is None or layer.latency_us >= 0
        assert all(count is None or count >= 0 for count in compiled.memory_usage().to_json().values())
        assert compiled.engine() is None or len(compiled.engine() or b"") > 0

    def test_its_clock_times_it(self, backend: Backend) -> None:
        """The timing protocol with the backend's clock gives positive, ordered statistics."""
        compiled = {
            name: backend.compile(Artifact.onnx(models.convolution(count)), threads=1)
            for name, count in (("a", 1), ("b", 9))
        }
        x = np.ones((1, 2, 4, 4), np.float32)
        stats = time_paired(compiled, "a", {"x": x}, _FEW, threads=1, batch_size=1, clock=backend.clock)
        assert list(stats) == ["a", "b"]
        assert stats["a"].ratio == 1
        for entry in stats.values():
            assert 0 < entry.ci_low_ms <= entry.median_ms <= entry.ci_high_ms
            assert entry.median_ms <= entry.p90_ms
