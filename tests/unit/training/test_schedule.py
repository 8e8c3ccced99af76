"""Learning rates, groups of parameters, and the moving average of weights."""

from __future__ import annotations

import itertools

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from capsmith.training.schedule import Average, Schedule, parameter_groups  # noqa: E402


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_the_rate_rises_and_falls_to_its_floor(shape: str) -> None:
    schedule = Schedule(steps=100, warmup=10, shape=shape, floor=0.02)  # type: ignore[arg-type]
    rates = [schedule.factor(step) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 11)
    assert all(a < b for a, b in itertools.pairwise(rates[:11]))
    assert max(rates) == rates[10] == pytest.approx(1.0)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0.02)
    middle = {"linear": 0.51, "cosine": 0.51}[shape]
    assert rates[55] == pytest.approx(middle)
    quarter = {"linear": 0.755, "cosine": 0.02 + 0.98 * 0.5 * (1 + 0.5**0.5)}[shape]
    assert (rates[32] + rates[33]) / 2 == pytest.approx(quarter, abs=1e-3)


def test_a_constant_rate_stays_and_no_step_is_lost() -> None:
    constant = Schedule(steps=9, warmup=2, shape="constant")
    assert [constant.factor(step) for step in (2, 5, 8)] == [1, 1, 1]
    short = Schedule(steps=1, warmup=0)
    assert short.factor(0) == 1
    assert all(Schedule(steps=5, warmup=20).factor(step) > 0 for step in range(5))


def test_slow_parameters_biases_and_norms_have_groups_of_their_own() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.LayerNorm(2))
    model[1].weight.requires_grad_(False)
    groups = parameter_groups(model, model[0], learning_rate=0.1, pace=0.05, decay=0.3)
    table = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert table[id(model[0].weight)] == (pytest.approx(0.005), 0.3)
    assert table[id(model[0].bias)] == (pytest.approx(0.005), 0.0)
    assert table[id(model[1].bias)] == (0.1, 0.0)
    assert table[id(model[2].weight)] == (0.1, 0.0)
    assert id(model[1].weight) not in table
    assert len(table) == 5


def test_the_average_follows_the_weights_and_swaps() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    average = Average(model, 0.9)
    by_hand = 0.0
    for count in range(1, 200):
        nn.init.constant_(model.weight, float(count % 3))
        average.update(model)
        decay = min(0.9, (1 + count) / (10 + count))
        by_hand = decay * by_hand + (1 - decay) * (count % 3)
    assert average.weights["weight"].item() == pytest.approx(by_hand, rel=1e-5)
    assert 0.5 < by_hand < 1.5
    before = model.weight.item()
    average.swap(model)
    assert model.weight.item() == pytest.approx(by_hand, rel=1e-5)
    average.swap(model)
    assert model.weight.item() == before


def test_a_loaded_average_goes_on() -> None:
    model = nn.Linear(2, 2)
    one = Average(model, 0.99)
    one.update(model)
    other = Average(nn.Linear(2, 2), 0.99)
    other.load_state_dict(one.state_dict())
    nn.init.ones_(model.weight)
    for average in (one, other):
        average.update(model)
    assert one.count == other.count == 2
    for name, tensor in one.weights.items():
        assert tensor.equal(other.weights[name])
