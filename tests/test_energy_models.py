"""The models of energy give what their authors printed, and answer to what they assume as they should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from events import convolution, dense, layer_of
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from networks import networks, random_ann, random_images

from ann_snn_utils.measure.energy import Arithmetic, energy
from ann_snn_utils.measure.events import (
    CLASSIFIER,
    ENCODER,
    FP32,
    INT8,
    Rival,
    layer_events,
    macs,
    rivals_of,
    spikes_per_synapse,
)
from ann_snn_utils.measure.memory import (
    ADD,
    MULTIPLY,
    Lemaire,
    Yan,
    by_size,
    lemaire_dense,
    lemaire_spiking,
    yan_dense,
    yan_spiking,
)
from ann_snn_utils.measure.verdict import (
    MODELS,
    QUESTIONS,
    THRESHOLDS,
    break_even,
    energy_by_model,
    energy_summary,
    estimate,
    run_events_of,
    scenarios,
    silence_pays,
    tornado,
)
from ann_snn_utils.simulator import oracle
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.conversion import convert

# Lemaire et al.: the numbers below are what the authors' own code computes, the methods of EnergyEstimationMetric
# in qualia-plugin-snn 2.6.0 called with these layers: a 5×5 convolution of 32×12×12 to 64×8×8, a 2×2 one of stride
# 2 of 32×24×24 to 32×12×12, and 1024 inputs to 1000 neurons. T = 4; 0.25 spikes an input and inference; 0.5 spikes
# an output, in the fully connected layer 0.125; queues of 64 entries. There every value has one width.
CONV = convolution(32, 12, 64, 5, 1, arriving=1152, sops=1152 * 64 * 25, spikes=2048, steps=4)
HALVED = convolution(32, 24, 32, 2, 2, arriving=4608, sops=4608 * 32, spikes=2304, steps=4)
FULL = dense(1024, 1000, arriving=256, sops=256 * 1000, spikes=125, steps=4)
AUTHORS = Lemaire(access="fitted", value_bits=8, thresholds=False)
BANKED = replace(AUTHORS, access="8 kB banks")


def totals(parts):
    return {name: float(np.sum(cost)) for name, cost in parts.items()}


@pytest.mark.parametrize(
    ("layer", "how", "membranes", "weights", "traffic", "arithmetic"),
    [
        (CONV, AUTHORS, 50421397.297562, 32559464.448, 42257.85856, 55848.96),
        (FULL, AUTHORS, 6909344.0, 26238156.8, 5031.326285, 7803.75),
        (CONV, BANKED, 4648960.0, 2304000.0, 4000.0, 55848.96),
        (FULL, BANKED, 650000.0, 320000.0, 476.25, 7803.75),
    ],
)
def test_spiking_layers_cost_what_the_code_of_lemaire_and_others_prints(
    layer, how, membranes, weights, traffic, arithmetic
):
    spent = totals(lemaire_spiking(layer, how))
    printed = {"membranes": membranes, "weights": weights, "traffic": traffic, "arithmetic": arithmetic}
    assert {name: spent[name] for name in printed} == pytest.approx(printed, rel=1e-7)
    assert spent["thresholds"] == 0


@pytest.mark.parametrize(
    ("layer", "how", "weights", "traffic", "arithmetic", "addressing"),
    [
        (CONV, AUTHORS, 57883492.352, 44625966.084915, 753786.88, 1030.4),
        (HALVED, AUTHORS, 7996344.945869, 8796360.63191, 135797.76, 2316.8),
        (FULL, AUTHORS, 104952627.2, 26895.435827, 235550.0, 102400.0),
        (CONV, BANKED, 4096000.0, 4101120.0, 753786.88, 1030.4),
        (FULL, BANKED, 1280000.0, 2530.0, 235550.0, 102400.0),
    ],
)
def test_dense_layers_cost_what_their_code_prints(layer, how, weights, traffic, arithmetic, addressing):
    # Addresses are of 32 bits here: the code's numbers for them are those of its run at 32 bits.
    spent = totals(lemaire_dense(layer, INT8, how))
    printed = {"weights": weights, "traffic": traffic, "arithmetic": arithmetic, "addressing": addressing}
    assert {name: spent[name] for name in printed} == pytest.approx(printed, rel=1e-7)


def test_wider_values_cost_what_their_code_prints_at_32_bits():
    how, wide = replace(AUTHORS, value_bits=32), replace(CONV, weight_bits=16, membrane_bits=31)
    spent = totals(lemaire_spiking(wide, how))
    assert spent["membranes"] == pytest.approx(54406536.390246) and spent["weights"] == pytest.approx(57247137.792)
    assert spent["arithmetic"] == pytest.approx(186163.2)
    # Two multiply-accumulates a spike as printed, and θ·Cout·k additions as in the paper: their code leaves out
    # Cout.
    printed, channels = 10252.8, 64
    multiplied = 2 * 1152 * 3.2
    assert spent["addressing"] == pytest.approx(multiplied + channels * (printed - multiplied))
    dense_cost = totals(lemaire_dense(wide, Rival("", 16, 16), how))
    assert dense_cost["arithmetic"] == pytest.approx(10486169.6)


def test_what_the_paper_and_its_code_count_too_much_is_not_counted():
    # Paper, eq. 2.4: θin·Nin·Nout additions in a fully connected layer. Its code leaves out Nin, as we do.
    additions = totals(lemaire_spiking(FULL, AUTHORS))["arithmetic"] / ADD["int8"]
    assert additions == pytest.approx(256 * 1000 + 4 * 1000 + 125)
    # Their code multiplies addresses by a spike rate, 25 at 32 bits, where the paper has spikes, 25 600.
    assert totals(lemaire_spiking(FULL, AUTHORS))["addressing"] == pytest.approx(25600)
    # A spike reaches ⌈k / stride⌉² places of a kernel; of a stride of 2 both fetch weights for all k² of them.
    fetched = totals(lemaire_spiking(HALVED, AUTHORS))["weights"]
    assert fetched == pytest.approx(7996344.945869 / 4)


def test_an_access_costs_what_horowitz_measured_and_lies_on_a_line_in_between():
    kilobyte = 8192
    assert [by_size(size * kilobyte, 64) for size in (0, 4, 8, 20, 32, 528, 1024)] == [0, 5, 10, 15, 20, 60, 100]
    assert by_size(2016 * kilobyte, 64) == pytest.approx(180), "beyond 1 MB the last line goes on"
    assert (ADD["int8"], ADD["int32"], ADD["fp32"]) == (0.03, 0.1, 0.9)
    assert (MULTIPLY["int8"], MULTIPLY["int32"], MULTIPLY["fp32"]) == (0.2, 3.1, 3.7)


# Yan et al., version 4: abstract (5.7 % at T = 5), and a reading of the text that is kept with its tables in
# public (break-evens by fan-in, weight bits and T; ranges where one energy is changed by half; ratios of the dense
# regime). Version 3 had its multiplications scaled from FP32 and 6.4 % in its abstract.
def neuron(rate: float, steps: int, fan_in: int = 4096, weight_bits: int = 4):
    spikes = rate * steps * fan_in
    layer = dense(
        fan_in, 1, arriving=spikes, sops=spikes, spikes=rate * steps, steps=steps, weight_bits=weight_bits
    )
    return layer, Rival("", steps.bit_length(), weight_bits)


def rate_of_break_even(how: Yan, steps: int = 5, fan_in: int = 4096, weight_bits: int = 4) -> float:
    cost = []
    for rate in (0.0, 1.0):
        layer, rival = neuron(rate, steps, fan_in, weight_bits)
        cost.append(sum(totals(yan_spiking(layer, how)).values()))
    return (sum(totals(yan_dense(layer, rival, how)).values()) - cost[0]) / (cost[1] - cost[0])


@pytest.mark.parametrize(
    ("steps", "fan_in", "weight_bits", "published"),
    [(5, 4096, 4, 0.057), (5, 64, 4, 0.054), (2, 4096, 4, 0.104), (2, 4096, 8, 0.123), (3, 4096, 8, 0.082)],
)
def test_the_break_even_rates_of_yan_and_others(steps, fan_in, weight_bits, published):
    assert rate_of_break_even(Yan(), steps, fan_in, weight_bits) == pytest.approx(published, abs=6e-4)


@pytest.mark.parametrize(
    ("field", "factor", "published"),
    [
        ("dense_bit", 0.5, 0.0341),
        ("sparse_bit", 0.5, 0.1080),
        ("weight_bit", 0.5, 0.0539),
        ("weight_bit", 1.5, 0.0608),
    ],
)
def test_how_far_their_break_even_moves_when_one_energy_is_changed_by_half(field, factor, published):
    changed = replace(Yan(), **{field: factor * getattr(Yan(), field)})
    assert rate_of_break_even(changed) == pytest.approx(published, abs=4e-4)


def test_arithmetic_moves_their_break_even_by_less_than_a_twentieth_of_a_point():
    changed = rate_of_break_even(replace(Yan(), add=1.5 * 0.05448))
    assert abs(changed - rate_of_break_even(Yan())) < 0.0006


def test_version_3_scaled_multiplications_from_fp32():
    # At b = 3 bits, in activations and weights alike: 6.4 % in its abstract.
    assert Yan(scaled_mac=True).multiply_accumulate(3, 3) == pytest.approx(0.1169, abs=1e-4)
    assert Yan(scaled_mac=True).multiply_accumulate(32, 32) == pytest.approx(4.6), "the multiply-accumulate of FP32"
    assert rate_of_break_even(Yan(scaled_mac=True), weight_bits=3) == pytest.approx(0.064, abs=2.5e-3)


@pytest.mark.parametrize(("steps", "published"), [(3, 1.5), (7, 2.338), (15, 3.762)])
def test_where_both_move_densely_the_ratio_is_that_of_steps_and_bits(steps, published):
    # A spiking transformer whose events are streamed like activations, at every step: T / ⌈log2(T + 1)⌉.
    how = Yan(add=0.0, weight_bit=0.0, state_bit=0.0, sparse_bit=0.25)
    layer, rival = neuron(1.0, steps)
    moved = totals(yan_spiking(layer, how))["traffic"] / totals(yan_dense(layer, rival, how))["traffic"]
    assert moved == pytest.approx(steps / steps.bit_length()) == pytest.approx(published, rel=5e-3)


def test_the_thresholds_of_others():
    # Davidson & Furber print 12 E / 7 E as 1.72, one unit of the last place too much: a spike fetches a weight for
    # 5 E, adds for 1 E and writes back for 1 E; a multiply-accumulate with its accesses takes 12 E.
    assert THRESHOLDS["Davidson & Furber"] == (12 / (5 + 1 + 1),) * 2 and 12 / 7 == pytest.approx(1.72, abs=0.006)
    assert THRESHOLDS["Dampfhoffer et al."] == (0.15, 1.38)
    assert THRESHOLDS["Yan et al."][0] == pytest.approx(5 * rate_of_break_even(Yan()), abs=0.003)


def test_the_rivals_of_a_run_have_the_bits_of_its_counts():
    for steps, bits in ((1, 1), (3, 2), (4, 3), (7, 3), (8, 4)):
        layers = [layer_of(1, 1, 1, steps, inputs=1, neurons=1, channels=1, weights=1, synapses=1)]
        found = rivals_of(layers)
        assert {"fp32", "int8", "matched", "ternary"} == set(found), "no counts, no rival that skips zeros"
        assert found["matched"].activation_bits == found["matched"].weight_bits == bits
        assert found["matched"].name == f"{bits}-bit"
    assert FP32.widths(CONV) == (32, 32) and INT8.widths(CONV) == (8, 8)


def test_both_ends_keep_their_widths_below_8_bits_and_ternary_weights_are_added():
    narrow, own = Rival("", 3, 3), Rival("", 3, None)
    encoder, classifier = replace(CONV, kind=ENCODER), replace(FULL, kind=CLASSIFIER)
    ternary = replace(CONV, weight_bits=2)
    assert (
        narrow.widths(encoder) == (8, 8)
        and narrow.widths(classifier) == (3, 8)
        and narrow.widths(ternary) == (3, 3)
    )
    assert own.widths(ternary) == (3, 2) and own.adds(ternary) and not own.adds(CONV) and not INT8.adds(ternary)


ANN = random_ann(3, clip=2)
SNN = convert(ANN)
IMAGES = random_images(3, (1, 8, 8), samples=9)
RECORD = simulate(SNN, IMAGES)
RUNS = run_events_of(RECORD, SNN)


@tries(15)
@given(networks(), st.integers(0, 50))
def test_synapses_and_what_reaches_them_are_counted_at_the_border_too(ann, seed):
    snn = convert(ann, max_levels=512)
    images = random_images(seed, ann.spec.in_shape, 2)
    record = simulate(snn, images)
    layers = layer_events(record, snn)
    plain, classifier = oracle.layers_of(ann)
    run = oracle.run(ann, images.numpy(), record.time_steps)

    def reached(layer: oracle.Layer, values: dict[int, np.ndarray]) -> int:
        pairs = ((one, oracle.gathered(one, {s: values[s] for s in one.sources})) for one in layer.branches)
        return sum(oracle.operations(np.ones_like(one.weight), one, inputs) for one, inputs in pairs)

    shapes = [ann.spec.in_shape, *(layer.out_shape for layer in ann.spec.layers)]
    every = {index - 1: np.ones((1, *shape), int) for index, shape in enumerate(shapes)}
    live = {index: (spikes.sum(0) != 0).astype(int) for index, spikes in enumerate(run.spikes)}
    for index, layer in enumerate(plain):
        assert layers[index].synapses == reached(layer, every)
        assert layers[index].macs == macs(ann.spec)[index]
        assert not ann.spec.graph.chain or layers[index].synapses <= layers[index].macs
        if index:
            assert layers[index].nonzero_macs == pytest.approx(reached(layer, live) / len(images))
    assert layers[-1].sops.sum() == pytest.approx(layers[-1].arriving.sum() * snn.spec.classes)


def test_the_model_of_arithmetic_is_the_energy_of_a_run():
    whole = energy(RECORD, SNN)
    found = estimate(RUNS.until_silence, Arithmetic())
    assert found.total == pytest.approx(whole.snn.total)
    assert found.totals["int8"] == pytest.approx(whole.ann_int8.total)
    assert found.totals["fp32"] == pytest.approx(whole.ann_fp32.total)
    first = energy(RECORD, SNN, time_steps=2).snn.total
    assert found.until_step[1] == pytest.approx(first)


@pytest.mark.parametrize("model", MODELS)
def test_an_estimate_is_told_by_layer_and_by_step(model):
    found = estimate(RUNS.fixed, MODELS[model])
    assert found.layers == (*RECORD.layer_names, "classifier")
    assert all(cost.shape == (len(found.layers), RECORD.time_steps) for cost in found.spiking.values())
    assert found.until_step[-1] == pytest.approx(found.total)
    assert all(cost.min() >= 0 for parts in (found.spiking, *found.dense.values()) for cost in parts.values())
    assert found.saves["int8"] == pytest.approx(found.totals["int8"] / found.total)


@pytest.mark.parametrize("model", MODELS)
def test_every_assumption_is_a_question_whose_first_word_is_the_models_own(model):
    rows = scenarios(RUNS, model)
    own = estimate(RUNS.until_silence, MODELS[model]).saves
    assert len(rows) == np.prod([len(answers) for answers in QUESTIONS[model].values()]) * 2 * len(own)
    chosen = {question: next(iter(answers)) for question, answers in QUESTIONS[model].items()}
    (same,) = [row for row in rows if row == row | chosen | {"run": "until silence", "rival": "int8"}]
    assert same["saves"] == pytest.approx(own["int8"])
    told = tornado(RUNS, model)
    assert set(told) == {*QUESTIONS[model], "run", "rival"}
    swings = [max(saves.values()) / min(saves.values()) for saves in told.values()]
    assert swings == sorted(swings, reverse=True), "what decides most comes first"
    assert all(min(abs(s - own["int8"]) for s in saves.values()) < 1e-9 for saves in told.values())


def test_fetching_zero_weights_costs_more_and_reuse_helps_the_rival():
    layers = RUNS.until_silence
    for model, more in (("lemaire", {"reuse": "weights"}), ("yan", {"reuse": True})):
        how = MODELS[model]
        assert estimate(layers, replace(how, skip_zero_weights=False)).total > estimate(layers, how).total
        assert estimate(layers, replace(how, **more)).totals["int8"] <= estimate(layers, how).totals["int8"]


def test_a_neuron_that_nothing_reaches_is_neither_read_nor_compared_where_membranes_wait_for_spikes():
    silent = convolution(2, 6, 3, 3, 1, arriving=0, sops=0, spikes=0, steps=3)
    assert sum(totals(lemaire_spiking(silent, Lemaire(membranes="spike"))).values()) == 0
    clocked = totals(lemaire_spiking(silent, Lemaire(membranes="step")))
    assert clocked["membranes"] == pytest.approx(2 * 3 * 48 * by_size(48 * 8, 8)) and clocked["arithmetic"] > 0


def test_no_model_fetches_weights_for_maxima():
    snn = convert(random_ann(5, network="2C3-M2-4", in_shape=(1, 6, 6), padding="same"))
    layers = layer_events(simulate(snn, random_images(5, (1, 6, 6))), snn)
    for how in (Lemaire(), Yan(), Yan(reuse=False)):
        found = estimate(layers, how)
        maxima = [parts["weights"][1].sum() for parts in (found.spiking, *found.dense.values())]
        assert found.layers[1] == "M2" and maxima == [0] * 6


def test_a_rival_that_skips_zeros_multiplies_by_what_is_not_zero():
    found = estimate(RUNS.until_silence, Arithmetic())
    encoder, *others = RUNS.until_silence
    expected = encoder.macs + sum(layer.macs * layer.nonzero_macs / layer.synapses for layer in others)
    assert (
        found.totals["int8_skipping"] == pytest.approx(0.23 * expected)
        and found.totals["int8_skipping"] < found.totals["int8"]
    )


def test_silence_pays_for_what_runs_by_the_clock_and_never_costs():
    for model, how in MODELS.items():
        pays = silence_pays(RUNS, SNN, how)
        costs = [pays[name]["pj"] for name in ("silence", "slowest", "guaranteed")]
        steps = [pays[name]["steps"] for name in ("silence", "slowest", "guaranteed")]
        assert (np.diff(costs) > -1e-9).all() and steps == sorted(steps)
        assert (costs[0] < 0.999 * costs[2]) == (model != "arithmetic"), (
            "spikes end by themselves, the clock does not"
        )
    assert steps[0] == pytest.approx(RECORD.settled_at.double().mean() + 1)
    longer = simulate(SNN, IMAGES, SNN.sufficient_steps)
    always = layer_events(longer, SNN, until_silence=False)
    assert costs[2] == pytest.approx(estimate(always, MODELS["yan"]).total)


def test_a_run_of_fixed_length_has_the_same_spikes_and_always_works():
    for one, other in zip(RUNS.fixed, layer_events(RECORD, SNN, until_silence=False), strict=True):
        assert (one.working == other.working).all() and (one.sops == other.sops).all()


def test_steps_beyond_the_silence_of_all_images_cost_nothing_and_give_no_rival_more_bits():
    longer = simulate(SNN, IMAGES, 4 * RECORD.time_steps)
    assert energy_summary(longer, SNN) == energy_summary(RECORD, SNN)


def test_at_the_break_even_both_cost_the_same():
    layers = RUNS.until_silence
    for how in MODELS.values():
        factor = break_even(layers, how) / spikes_per_synapse(layers)
        found = estimate([layer.scaled(factor) for layer in layers], how)
        assert found.total == pytest.approx(found.totals["int8"])


def test_a_network_that_never_fires_has_no_break_even_and_a_verdict_all_the_same():
    layers = [replace(layer, thresholds=layer.highest[:, None] + 1) for layer in SNN.layers]
    mute = replace(SNN, layers=tuple(layers))
    found = energy_summary(simulate(mute, IMAGES), mute)
    assert found["spikes_per_synapse"] == {"all": 0, "nonzero": 0}
    for entry in found["models"].values():
        assert all(map(np.isnan, entry["break_even"].values())) and entry["saves"]["int8"] > 1


def test_a_summary_holds_every_model_and_rival_and_its_spread():
    found = energy_summary(RECORD, SNN)
    assert found["spikes_per_synapse"]["nonzero"] < found["spikes_per_synapse"]["all"]
    for model, entry in found["models"].items():
        assert entry["pj"] == energy_by_model(RUNS)[model] and set(entry["spread"]) == set(found["rivals"])
        for rival, saves in entry["saves"].items():
            assert entry["spread"][rival]["least"] <= saves <= entry["spread"][rival]["greatest"]
            assert 0 <= entry["spread"][rival]["wins"] <= 1


def test_a_record_of_another_network_or_too_few_steps_is_refused():
    with pytest.raises(ValueError, match="pass the network it ran on"):
        layer_events(RECORD, convert(random_ann(1, network="3", in_shape=(1, 4, 4))))
    with pytest.raises(ValueError, match="time_steps=99"):
        layer_events(RECORD, SNN, 99)
