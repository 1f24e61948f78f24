"""Fit a classifier of digits, as MLServer's own quickstart does, and write model.joblib here."""

import joblib
from sklearn.datasets import load_digits
from sklearn.svm import SVC

digits = load_digits()
joblib.dump(SVC(gamma=0.001).fit(digits.data, digits.target), "model.joblib")
