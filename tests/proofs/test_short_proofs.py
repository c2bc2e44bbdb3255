"""Short versions of the long proofs of ``scripts/verify``: the same code, fewer images and formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitloop.data import dataset
from bitloop.data.splits import Split
from proofs import faults, native


@pytest.fixture(scope="module")
def images(mnist_dir: Path) -> dataset.Images:
    return dataset.load("mnist", mnist_dir).split(Split.SEARCH)


@pytest.mark.parametrize("network", native.NETWORKS)
def test_device_equals_host_in_every_format(network: str, images: dataset.Images) -> None:
    for _, text, record in native.records((network,), native.FORMATS, images.first(200)):
        assert native.exact(record, 200), f"{network} {text}: {record.headline}"


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.url) for fault in faults.FAULTS])
def test_a_wrong_device_is_caught(fault: faults.Fault, images: dataset.Images) -> None:
    ((_, record),) = faults.records((fault,), images.first(100))
    assert faults.caught(fault, record), record.headline


def test_the_proof_itself_fails_for_a_wrong_device(images: dataset.Images) -> None:
    ((_, record),) = faults.records((faults.FAULTS[0],), images.first(20))
    assert not native.exact(record, 20)
