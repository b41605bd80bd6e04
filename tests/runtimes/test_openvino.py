"""Keras's OpenVINO backend, which trains nothing: it opens files of the others and predicts."""

from elsewhere import predicts_as_here


def test_it_predicts_what_another_backend_saved(tmp_path):
    predicts_as_here("openvino", tmp_path, 1e-4)
