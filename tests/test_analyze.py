"""Reports on files: what is read, what is left out, and that neither order nor threads change a number."""

import json

import numpy as np

from topobounds import ModelReport, analyze


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "fc1.weight": rng.standard_normal((30, 50)),
        "fc1.bias": np.zeros(30),
        "fc2.weight": rng.standard_normal((10, 30)),
    }


def test_a_report_is_the_same_after_a_journey_through_a_file(tmp_path):
    broken = {"fc3.weight": np.full((4, 10), np.nan)}
    report = analyze(arrays() | broken, seed=0, scales=True)
    report.save(tmp_path / "report.json")
    again = ModelReport.load(tmp_path / "report.json")
    assert again == report
    assert again.to_dict() == report.to_dict() == json.loads((tmp_path / "report.json").read_text())
