"""Plans whose weights travel with each batch: placement by hand, what is chosen, and what does not fit."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from bitloop.errors import DoesNotFitError, ModelError, UsageError
from bitloop.hello import DeviceInfo
from bitloop.native import Evaluator
from bitloop.network.architecture import Architecture, AveragePool2D, Conv2D, Dense, Flatten, MaxPool2D, ReLU
from bitloop.network.network import Network
from bitloop.network.zoo import zoo_architecture
from bitloop.plan import Plan, plan, read_image
from bitloop.plan.arrange import arrange, buffers_of, live_bytes
from bitloop.plan.stages import stages
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model
from bitloop.quantize.recipe import parse_recipe
from bitloop.spec import Capability

NATIVE = DeviceInfo.native_default()
NO_STREAM = replace(NATIVE, capabilities=NATIVE.capabilities & ~Capability.STREAMED_WEIGHTS)
MODELS: dict[tuple[Architecture, str], Model] = {}


def model_of(architecture: Architecture, weights: str) -> Model:
    if (architecture, weights) not in MODELS:
        generator = np.random.default_rng(5)
        values = {
            name: generator.normal(size=shape).astype(np.float32)
            for name, shape in architecture.parameter_shapes().items()
        }
        network = Network(architecture, values, dataset="", metadata={})
        MODELS[architecture, weights] = quantize(network, parse_recipe(weights, "fp32", []))
    return MODELS[architecture, weights]


def chunk_columns(planned: Plan) -> list[int]:
    """Of each operation's weights."""
    image = read_image(planned.image)
    return [image.tensors[layer.weights].chunk_columns if layer.weights != 0xFFFF else 0 for layer in image.layers]


# --- stages and lives -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("streamed", "numbers"),
    [
        ([0], [0]),
        ([1], [0]),
        ([0, 0, 0], [0, 0, 0]),
        ([1, 1], [0, 1]),
        ([0, 0, 1, 0, 0, 1, 1, 0], [0, 0, 1, 2, 2, 3, 4, 5]),
    ],
)
def test_stages(streamed, numbers):
    assert stages([bool(own) for own in streamed]) == numbers


def test_how_long_outputs_are_in_use():
    """Layers 0 and 1 are a stage, 2 is streamed, 3 and 4 are a stage: what crosses is kept for three images.

    Sizes 8, 4, 6, 10, 2. Layer 1's output lives from layer 0, as its stage is run image by image, to layer 2; layer 2's
    from there to layer 4, where the stage that reads it ends; layer 4's from 3 on. 0's and 3's are shared.
    """
    buffers = buffers_of([8, 4, 6, 10, 2], [False] * 5, [0, 0, 1, 2, 2], batched=True)
    assert [(one.writer, one.first, one.last, one.batched) for one in buffers] == [
        (0, 0, 1, False),
        (1, 0, 2, True),
        (2, 2, 4, True),
        (3, 3, 4, False),
        (4, 3, 4, True),
    ]
    assert live_bytes(buffers, 5) == ([8, 8, 0, 10, 10], [4, 4, 10, 8, 8])
    found = arrange(buffers, [False] * 5, 3, [[1], [2], [7, 5], [], [3]])
    # 8 + 12 + 1; 8 + 12 + 2; 12 + 18 + 7 + 5; 18 + 6 + 10; 18 + 6 + 10 + 3: 42 in all. Layer 1's outputs lie at the
    # low end, 2's at the high one, 4's at the low one. Layer 0's lies inside 1's, 3's inside 2's, at the high side.
    assert (found.size, found.peak) == (42, 2)
    assert found.outputs == (12, 0, 24, 14, 0)
    assert found.strides == (0, 4, 6, 0, 2)
    assert found.temporaries == ((20,), (20,), (12, 19), (), (6,))


def test_a_relu_in_place_keeps_what_its_buffer_holds():
    """Layer 1, a ReLU in place, is a stage of its own between two streamed layers: one buffer, kept from 0 to 2."""
    buffers = buffers_of([8, 8, 4], [False, True, False], [0, 1, 2], batched=True)
    assert [(one.writer, one.first, one.last, one.batched) for one in buffers] == [(0, 0, 2, True), (2, 2, 2, True)]
    found = arrange(buffers, [False, True, False], 2, [(), (), ()])
    assert (found.outputs, found.strides, found.size) == ((0, 0, 16), (8, 8, 4), 24)


def test_a_relu_behind_the_last_layer_gives_the_result():
    buffers = buffers_of([8, 4, 4], [False, False, True], [0, 1, 2], batched=True)
    assert [(one.writer, one.first, one.last, one.batched) for one in buffers] == [(0, 0, 1, True), (1, 1, 2, True)]


# --- what is chosen -------------------------------------------------------------------------------------------------

TWO = Architecture("two", (1, 8, 1), (Dense("a", 16, use_bias=False), Dense("b", 4, use_bias=False)))
"""At int16: a is 8 rows of 32 bytes, b 16 rows of 8 bytes. Image: 64 + 2 * 56 + 2 * 52 + 256 + 128 + 2 * 4 + 4 = 676.
A slot has 8 + 12 + 4 * 4 + 4 * 2 = 44 bytes, the outputs 64 and 16."""
TWO_BYTES = 676 + 64 + 16 + 44


def two(arena: int, **options) -> Plan:
    return plan(model_of(TWO, "int16"), NATIVE.with_arena(arena), **options)


def test_what_fits_stays():
    planned = two(TWO_BYTES)
    assert (planned.placement, planned.memory.total_bytes, planned.streamed) == ("resident", TWO_BYTES, None)
    assert two(TWO_BYTES - 4).placement == "stream"
    assert plan(model_of(TWO, "int16"), NO_STREAM.with_arena(TWO_BYTES)).placement == "resident"


def test_the_fewest_bytes_an_image_travel():
    """On 780 bytes, a chunk counted as 64 bytes more than it has; what is left for it, and so its columns:

    - b streamed, 128 bytes; the image has 548. One image: 780 - 548 - 44 - 64 - 16 = 108, 16 rows of 3 columns and
      4; two chunks, 256. Two images do not fit, as the outputs of both layers are kept.
    - a streamed, 256 bytes; the image has 420. Three images: 780 - 420 - 3 * (44 + 64) = 36, 2 columns, 8 chunks,
      768 / 3. Two: 144, 8 columns, 2 chunks, 384 / 2. One: 2 chunks too.
    - Both, 384 bytes; the image has 292. Three images: 780 - 292 - 3 * (44 + 64) = 164 for a, 10 columns, and 48 less,
      116, for b, 3 columns; 2 chunks each, 640 / 3. Two: a chunk each, 512 / 2.
    """
    planned = two(780)
    assert planned.streamed is not None
    assert chunk_columns(planned) == [8, 0]
    assert (len(planned.streamed.data), planned.streamed.batch, planned.streamed.ends) == (256, 2, (256, 256))
    assert planned.streamed.bytes_per_image == 128.0
    # While a runs: 2 * 64 bytes of outputs, 8 rows of 16 bytes and 4; while b runs: 2 * (64 + 16).
    memory = planned.memory
    assert (memory.weights_bytes, memory.activations_bytes, memory.chunks_bytes) == (420, 128, 132)
    assert memory.total_bytes == 420 + 128 + 132 + 2 * 44


def test_a_batch_that_was_asked_for():
    planned = two(760, slots=1)
    assert planned.streamed is not None
    # Of one image b costs the least: 760 - 548 - 44 - 64 - 16 = 88 bytes for its chunk, 84 are 16 rows of 2 columns.
    assert chunk_columns(planned) == [0, 2]
    assert (len(planned.streamed.data), planned.streamed.batch, planned.streamed.ends) == (128, 1, (0, 128))
    assert two(796, slots=2).memory.slots == 2
    with pytest.raises(UsageError, match="slots"):
        two(796, slots=0)


def test_all_weights_travel_if_asked():
    planned = two(100_000, placement="stream")
    assert planned.streamed is not None
    assert (chunk_columns(planned), planned.streamed.ends, planned.streamed.batch) == ([16, 4], (256, 384), 64)
    assert planned.memory.total_bytes == 292 + 64 * (64 + 16 + 44) + 132
    assert two(100_000, placement="stream", slots=7).streamed.batch == 7


def test_nothing_travels_if_nothing_has_weights():
    network = Architecture("pool", (4, 4, 1), (AveragePool2D("p"), Flatten("f")))
    planned = plan(model_of(network, "int8"), NATIVE, placement="stream")
    assert (planned.placement, planned.streamed) == ("resident", None)


def test_the_same_gives_the_same_bytes():
    assert two(780) == two(780)


@pytest.mark.parametrize(
    ("weights", "columns", "row_bytes", "chosen", "streamed_row_bytes"),
    [
        # 45 columns of 5 bits are 225 bits, 29 bytes.
        ("int5", 45, 5, 8, 29),
        ("int5", 45, 6, 8, 29),  # 9 would fit: 5 * 6 bytes
        ("int5", 45, 9, 14, 29),  # 3 * 9 + 2 bytes: as few as with 8
        ("int5", 45, 10, 16, 29),
        ("int4", 21, 1, 2, 11),
        ("int4", 21, 2, 4, 11),
        ("ternary", 23, 1, 5, 5),
        ("ternary", 23, 2, 10, 5),
    ],
)
def test_rows_of_a_chunk_waste_no_bits(weights, columns, row_bytes, chosen, streamed_row_bytes):
    """With rows this many, waste costs more than another chunk."""
    rows = 480
    network = Architecture("rows", (1, rows, 1), (Dense("d", columns, use_bias=False),))
    device = replace(NATIVE, table_bits=0, packings=(1, 0))
    for spare in (0, rows - 4):
        arena = row_least(rows, columns) + rows * row_bytes + 4 + spare
        planned = plan(model_of(network, weights), device.with_arena(arena), slots=1, placement="stream")
        assert chunk_columns(planned) == [chosen]
        assert planned.streamed is not None
        assert len(planned.streamed.data) == rows * streamed_row_bytes


def row_least(rows: int, columns: int) -> int:
    """Image without weights but with a scale, slot and output of one dense layer."""
    return 64 + 56 + 52 + 4 + 4 + rows + 12 + 4 * columns + 4 + 4 * columns


@pytest.mark.parametrize(("row_bytes", "columns"), [(1, 1), (2, 3), (3, 3), (4, 6), (5, 8)])
def test_fewer_columns_than_end_at_a_byte(row_bytes, columns):
    """Of 21 columns of 5 bits: one takes a byte of a row, 21 in all; 3 take 2 bytes, 7 * 2 in all; 4 take 3 bytes,
    5 * 3 + 1 in all; 5 and 6 take 4 bytes, 4 * 4 + 1 and 3 * 4 + 2 in all; 8 take 5, 2 * 5 + 4."""
    network = Architecture("rows", (1, 48, 1), (Dense("d", 21, use_bias=False),))
    device = replace(NATIVE, table_bits=0).with_arena(row_least(48, 21) + 48 * row_bytes + 4)
    planned = plan(model_of(network, "int5"), device, slots=1, placement="stream")
    assert chunk_columns(planned) == [columns]
    assert planned.streamed is not None
    assert len(planned.streamed.data) == 48 * (21 if columns == 1 else 14)


def test_a_table_may_halve_a_chunk_but_not_more():
    """A table of 64 int4 columns is 64 bytes; 32 rows of a column pair are 32."""
    network = Architecture("table", (1, 32, 1), (Dense("d", 64, use_bias=False),))
    model = model_of(network, "int4")
    least = row_least(32, 64)
    found = {}
    for pairs in (1, 2, 3, 4, 5, 40):
        planned = plan(model, NATIVE.with_arena(least + 32 * pairs + 4), slots=1, placement="stream")
        found[pairs] = (*chunk_columns(planned), planned.memory.tables_bytes)
    # Two pairs and a table take as much as four pairs.
    assert found == {1: (2, 0), 2: (4, 0), 3: (6, 0), 4: (4, 64), 5: (6, 64), 40: (64, 64)}


# --- what does not fit ----------------------------------------------------------------------------------------------


def test_what_is_missing_at_the_least():
    """Both streamed, for one image: 292 + 64 + 16 + 44 and a chunk of b, 36; or a chunk of a, 20."""
    assert two(452).memory.total_bytes == 452
    with pytest.raises(DoesNotFitError) as refused:
        two(448)
    error = refused.value
    assert (error.needed_bytes, error.available_bytes, error.missing_bytes) == (452, 448, 4)
    assert str(error) == (
        "the model needs 452 bytes of the device's arena, which has 448, even if weights travel with each batch: "
        "4 bytes are missing (image 292, activations and a chunk 116, queue 1 x 44); "
        "take fewer bits, a smaller network or a device with more memory"
    )


def test_resident_only():
    with pytest.raises(DoesNotFitError) as refused:
        two(700, placement="resident")
    assert refused.value.missing_bytes == TWO_BYTES - 700
    assert "let weights travel with each batch" in str(refused.value)
    assert "image 676, activations 80, queue 1 x 44" in str(refused.value)
    with pytest.raises(DoesNotFitError) as refused:
        two(400, placement="resident")
    assert "travel" not in str(refused.value)


def test_a_device_that_takes_no_streamed_weights():
    device = NO_STREAM.with_arena(700)
    for placement in ("auto", "resident"):
        with pytest.raises(DoesNotFitError) as refused:
            plan(model_of(TWO, "int16"), device, placement=placement)
        assert refused.value.missing_bytes == TWO_BYTES - 700
        assert "travel" not in str(refused.value)
    with pytest.raises(
        UsageError, match=r"the device \(native\) takes no streamed weights; flash a newer firmware, or keep"
    ):
        plan(model_of(TWO, "int16"), device, placement="stream")


def test_an_unknown_placement():
    with pytest.raises(UsageError, match="no placement 'flash'; take one of auto, resident, stream"):
        two(1000, placement="flash")


# --- networks of the zoo ----------------------------------------------------------------------------------------------


def test_the_study_s_network_on_a_large_microcontroller():
    model = model_of(zoo_architecture("bitopt2018"), "e3m1:pow2")
    begin = time.perf_counter()
    planned = plan(model, NATIVE.with_arena(118_000))
    assert time.perf_counter() - begin < 5.0  # about 0.1 s: every set of five layers
    assert planned.streamed is not None
    assert planned.streamed.batch == 4
    # conv3: 576 rows of 128 columns; dense1: 2,048 rows of 625; five bits each, rows of whole bytes.
    assert len(planned.streamed.data) == 576 * 80 + 2048 * 391
    assert planned.streamed.ends == (0, 0, 576 * 80, 576 * 80 + 2048 * 391, 576 * 80 + 2048 * 391)
    assert planned.memory.total_bytes <= 118_000


def test_a_network_for_8_kb_on_5_kb():
    planned = plan(model_of(zoo_architecture("mlp8k"), "int8"), NATIVE.with_arena(5120))
    assert planned.streamed is not None
    assert len(planned.streamed.data) == 196 * 20  # of dense1


def test_a_network_of_100_kb_on_5_kb():
    planned = plan(model_of(zoo_architecture("mlp"), "fp32"), NATIVE.with_arena(5120))
    assert planned.streamed is not None
    assert len(planned.streamed.data) == 4 * (784 * 32 + 32 * 16 + 16 * 10)


def test_maps_that_are_too_large_for_5_kb():
    """The pooled map of conv1 alone has 5,408 bytes."""
    with pytest.raises(DoesNotFitError, match="even if weights travel with each batch"):
        plan(model_of(zoo_architecture("cnn"), "fp32"), NATIVE.with_arena(5120))


def test_a_deep_network_is_planned_in_time():
    """Thirteen layers with weights are too many for every set; the planner still finds what fits."""
    layers = [layer for number in range(12) for layer in (Dense(f"d{number}", 40), ReLU(f"r{number}"))]
    network = Architecture("deep", (8, 8, 1), (Conv2D("c", 4, (3, 3)), MaxPool2D("p"), Flatten("f"), *layers))
    model = model_of(network, "int8")
    resident = plan(model, replace(NO_STREAM, table_bits=0), slots=1).memory.total_bytes
    begin = time.perf_counter()
    planned = plan(model, replace(NATIVE, table_bits=0).with_arena(resident - 3000))
    assert time.perf_counter() - begin < 5.0  # about 0.02 s
    assert planned.streamed is not None
    # Two of the layers of 40 * 40 bytes would do for one image: many are far better than that for a batch.
    assert planned.streamed.bytes_per_image < 2 * 1600 / 4


def test_ten_layers_are_planned_in_time():
    layers = [layer for number in range(10) for layer in (Dense(f"d{number}", 20 + number), ReLU(f"r{number}"))]
    model = model_of(Architecture("ten", (8, 8, 1), (Flatten("f"), *layers)), "int8")
    resident = plan(model, NO_STREAM, slots=1, placement="resident").memory.total_bytes
    begin = time.perf_counter()
    for missing in (4, 1000, 3000):
        assert plan(model, NATIVE.with_arena(resident - 1024 - missing)).placement == "stream"
    assert time.perf_counter() - begin < 15.0  # about 0.3 s each


def test_an_image_that_lacks_weights_is_not_evaluated():
    with pytest.raises(ModelError, match="weights of the image are streamed; plan it with placement 'resident'"):
        Evaluator(two(780).image)
