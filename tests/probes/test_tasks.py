import numpy as np
import pytest

from cliptex.labels.kinds import ClassMap
from cliptex.probes.config import ProbeConfig
from cliptex.probes.tasks import probe_task


def test_convert__a_class_id_beyond_the_kind_is_an_error_before_the_loss_sees_it():
    task = probe_task(ClassMap(("a", "b")), ProbeConfig())
    known = np.array([[0, 1], [255, 1]], np.uint8)
    np.testing.assert_array_equal(task.convert(known), known)
    with pytest.raises(ValueError, match="class id 7 is neither below 2 nor the ignore id 255"):
        task.convert(np.array([[0, 7]], np.uint8))
