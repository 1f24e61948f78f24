"""Write the breast cancer data of scikit-learn as a CSV file: 569 real rows, each seen by a physician.

The rows are those of the Wisconsin Diagnostic Breast Cancer data set (Wolberg, Street and
Mangasarian, UCI Machine Learning Repository, 1995), which scikit-learn carries.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

HELD_OUT_SHARE = 0.3


@dataclass(frozen=True)
class Patients:
    """The data set: one row a patient."""

    names: list[str]  # of the 30 features, as SQL identifiers
    features: np.ndarray  # float64 [569, 30]
    benign: np.ndarray  # bool [569]
    held_out: np.ndarray  # bool [569]: not shown to the training


def patients() -> Patients:
    """Load the rows and draw the held-out ones, the same every time."""
    data = load_breast_cancer()
    names = [name.replace(" ", "_") for name in data.feature_names]
    rows = np.arange(len(data.target))
    _, chosen = train_test_split(rows, test_size=HELD_OUT_SHARE, stratify=data.target, random_state=0)
    return Patients(names, data.data, data.target == 1, np.isin(rows, chosen))


def write_csv(data: Patients, path: Path) -> None:
    """Write a header and the rows: id, the features, diagnosis, held_out."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *data.names, "diagnosis", "held_out"])
        for i, features in enumerate(data.features):
            diagnosis = "benign" if data.benign[i] else "malignant"
            writer.writerow([i + 1, *features.tolist(), diagnosis, bool(data.held_out[i])])


def main() -> None:
    """Write the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("csv", type=Path, help="the file to write")
    write_csv(patients(), parser.parse_args().csv)


if __name__ == "__main__":
    main()
