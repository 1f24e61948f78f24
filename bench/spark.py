"""The peer that is Spark: pyspark.ml.functions.predict_batch_udf over a parquet file, local[2].

    PYTHON bench/spark.py '{"csv": ..., "address": ..., "batch_size": 4096, "runs": 3}'

A program of its own, for a Python that has pyspark, pandas, pyarrow and tritonclient. Writes one line of
JSON: a list of runs, each with rows, seconds, and the sum of the outputs. The first pass warms up and is left out.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql import functions as sql
from pyspark.sql.types import FloatType

COLUMNS = [f"f{number}" for number in range(1, 11)]


def make_predictor(address: str) -> Callable[[], Callable[..., Any]]:
    """Give what each worker calls once, and which gives what it calls with every batch."""

    def make() -> Callable[..., Any]:
        import numpy  # noqa: PLC0415 - runs in the worker
        import tritonclient.grpc as triton  # noqa: PLC0415

        client = triton.InferenceServerClient(address)
        outputs = [triton.InferRequestedOutput("total")]

        # Spark counts the parameters: one array a column is what it hands over fastest.
        def predict(f1: Any, f2: Any, f3: Any, f4: Any, f5: Any, f6: Any, f7: Any, f8: Any, f9: Any, f10: Any) -> Any:
            batch = numpy.column_stack([f1, f2, f3, f4, f5, f6, f7, f8, f9, f10]).astype("f4")
            tensor = triton.InferInput("x", batch.shape, "FP32")
            tensor.set_data_from_numpy(batch)
            return client.infer("sum10", [tensor], outputs=outputs).as_numpy("total").reshape(-1)

        return predict

    return make


def main() -> None:
    """Convert the rows to parquet, then score them several times."""
    task = json.loads(sys.argv[1])
    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    with tempfile.TemporaryDirectory() as directory:
        schema = ", ".join(["id INT", *(f"{column} DOUBLE" for column in COLUMNS)])
        spark.read.csv(task["csv"], schema=schema).write.parquet(f"{directory}/rows")
        predict = predict_batch_udf(
            make_predictor(task["address"]),
            return_type=FloatType(),
            batch_size=task["batch_size"],
        )
        runs = []
        for _ in range(1 + task["runs"]):
            # A query of its own each time: one that has run keeps the answers of its stages.
            totals = spark.read.parquet(f"{directory}/rows").select(predict(*COLUMNS).alias("total"))
            query = totals.select(sql.count("total"), sql.sum(sql.col("total").cast("double")))
            started = time.perf_counter()
            [[count, total]] = query.collect()
            runs.append({"rows": count, "seconds": time.perf_counter() - started, "total": total})
    spark.stop()
    sys.stdout.write(json.dumps(runs[1:]) + "\n")


if __name__ == "__main__":
    main()
