"""Fit a plane, z = x1 + 2 x2 + 3 x3 + 4, and write model.joblib here."""

import joblib
import numpy as np
from sklearn.linear_model import LinearRegression

points = np.random.default_rng(1).normal(size=(100, 3))
joblib.dump(LinearRegression().fit(points, points @ [1.0, 2.0, 3.0] + 4.0), "model.joblib")
