"""Scikit-learn's models, converted by skl2onnx: trees, neighbours and small perceptrons on a table of numbers."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bitfront.core import DataError
from bitfront.experiments.zoo.network import ZooNetwork, feed_of, normal

COLUMNS = 12


def _converted(make: Callable[[], Any]) -> Callable[[Path], bytes]:
    def convert(site: Path) -> bytes:
        table = np.random.default_rng(0).standard_normal((600, COLUMNS)).astype(np.float32)
        classes = (table[:, 0] * table[:, 1] > table[:, 2]).astype(int) + (table[:, 3] > 1)
        model = make().fit(table, classes)
        sys.path.append(str(site))  # last: what is installed here itself comes first
        try:
            convert_sklearn = importlib.import_module("skl2onnx").to_onnx
        except ImportError as error:
            raise DataError(f"skl2onnx cannot be imported: {error}", "run scripts/zoo-env") from error
        finally:
            sys.path.remove(str(site))
        options = {id(model): {"zipmap": False}}
        return bytes(convert_sklearn(model, table[:1], options=options, target_opset=18).SerializeToString())

    return convert


def _perceptron() -> Any:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), MLPClassifier((64, 32), max_iter=60, random_state=0))


def _forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(20, max_depth=6, random_state=0)


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression()


FORESTS = (
    ZooNetwork(name="sk-perceptron", origin="skl2onnx", kind="table, 2 outputs", model=_converted(_perceptron),
               feed=feed_of(X=normal((1, COLUMNS)))),
    ZooNetwork(name="sk-forest", origin="skl2onnx", kind="trees (ai.onnx.ml)", model=_converted(_forest),
               feed=feed_of(X=normal((1, COLUMNS)))),
    ZooNetwork(name="sk-logistic", origin="skl2onnx", kind="linear (ai.onnx.ml)", model=_converted(_logistic),
               feed=feed_of(X=normal((1, COLUMNS)))),
)  # fmt: skip
