"""Train the models of the demo and write their weights into a copy of the model repository."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from data import patients
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

PHRASES = Path(__file__).with_name("phrases.csv")


def train_breast_cancer(model: Path) -> str:
    """Fit standardisation and logistic regression; return what the held-out rows say."""
    data = patients()
    seen = ~data.held_out
    scaler, regression = StandardScaler(), LogisticRegression(max_iter=1000)
    pipeline = make_pipeline(scaler, regression).fit(data.features[seen], data.benign[seen])
    np.savez(
        model / "weights.npz",
        mean=scaler.mean_,
        scale=scaler.scale_,
        weights=regression.coef_[0],
        intercept=regression.intercept_[0],
    )
    accuracy = pipeline.score(data.features[data.held_out], data.benign[data.held_out])
    return f"breast_cancer: {seen.sum()} rows, accuracy {accuracy:.3f} on {data.held_out.sum()} more"


def train_sentiment(model: Path) -> str:
    """Fit logistic regression over the terms of the phrases; return how many there are."""
    with PHRASES.open(newline="") as file:
        rows = list(csv.DictReader(file))
    # The model's own notion of a term, so that training and serving cannot differ.
    counts = CountVectorizer(binary=True, analyzer=model_code(model).terms)
    regression = LogisticRegression(C=10.0, max_iter=1000)
    regression.fit(
        counts.fit_transform(row["text"] for row in rows),
        [row["label"] == "positive" for row in rows],
    )
    weights = dict(zip(counts.get_feature_names_out(), regression.coef_[0].tolist()))
    stored = {"intercept": float(regression.intercept_[0]), "weights": weights}
    (model / "weights.json").write_text(json.dumps(stored, indent=0))
    return f"sentiment: {len(rows)} phrases, {len(weights)} terms"


def model_code(model: Path) -> ModuleType:
    """Import a model's code outside Triton, where its utilities do not exist."""
    sys.modules.setdefault("triton_python_backend_utils", ModuleType("absent"))
    spec = importlib.util.spec_from_file_location("model", model / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Train into the model repository that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path, help="a copy of examples/models")
    repository = parser.parse_args().repository
    reports = [
        train_breast_cancer(repository / "breast_cancer" / "1"),
        train_sentiment(repository / "sentiment" / "1"),
    ]
    sys.stdout.write("\n".join(reports) + "\n")


if __name__ == "__main__":
    main()
