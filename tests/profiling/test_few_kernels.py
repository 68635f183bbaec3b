"""A run compiles the kernels of its step: the last batch of an epoch and evaluation need no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn.device import simulated
from gpucnn.networks import network
from gpucnn.profiling.chip import bounds, chips
from gpucnn.training.feed import HostFeed
from gpucnn.training.step import TrainingStep

if simulated():
    pytest.skip("the simulator compiles nothing", allow_module_level=True)

from gpucnn_kernels.choose.select import batches_of
from gpucnn_kernels.core.launch import recording

BATCH, IMAGE = 128, (1, 28, 28)


@pytest.mark.parametrize("name", ["keras", "tf2"])
def test_a_last_batch_and_evaluation_need_no_kernels_of_their_own(name: str) -> None:
    chip = chips.find("H100")
    with bounds.as_if_there(chip):
        model: Any = network(name).build(IMAGE, seed=0, device=bounds.device_of(chip)).compile("adam")
        step = TrainingStep(model, model.loss, model.optimizer, graphs=False)

        def trained(size: int) -> set[Any]:
            feed = HostFeed(step.graphs)
            feed.put(np.empty((size, *IMAGE), np.float32), np.zeros(size, np.int32))
            with recording(launching=False) as launches:
                step.run(feed, size)
            return {(launch.kernel, launch.signature) for launch in launches}

        def evaluated(size: int) -> set[Any]:
            x, labels = np.empty((size, *IMAGE), np.float32), np.zeros(size, np.int32)
            with recording(launching=False) as launches:
                model.chain.forward_with_loss(x, model.loss, labels, training=False)
            return {(launch.kernel, launch.signature) for launch in launches}

        whole = trained(BATCH)
        assert not trained(5) <= whole
        with batches_of(BATCH):
            for size in (1, 5, 16, 64, 96, BATCH):
                assert trained(size) == whole and evaluated(size) < whole
