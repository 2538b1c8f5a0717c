"""The moving average of a network's weights, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_dml.nnunet.moving_average import MovingAverage


def one_weight(value=0.0):
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, value)
    return network


def follow(average, network, values):
    """The average after each of the network's weights."""
    seen = []
    for value in values:
        nn.init.constant_(network.weight, value)
        average.update()
        seen.append(average.module.weight.item())
    return seen


def test_by_hand():
    """d = 0, 1/2, 0.6, 0.6: the first copies, the second is the mean, from then on the decay holds."""
    network = one_weight()
    average = MovingAverage(network, 0.6)
    third = 0.6 * 3 + 0.4 * 8
    assert follow(average, network, [2.0, 4.0, 8.0, 1.0]) == pytest.approx([2, 3, third, 0.6 * third + 0.4])
    assert average.updates == 4
    assert average.decay == 0.6


def test_before_the_decay_is_reached_it_is_the_mean_of_all():
    network = one_weight()
    average = MovingAverage(network, 0.99)
    values = torch.linspace(-3, 5, 20).tolist()
    assert follow(average, network, values)[-1] == pytest.approx(sum(values) / 20, rel=1e-5)
    assert average.decay == 1 - 1 / 21


def test_it_is_frozen_in_eval_mode_and_no_part_of_the_network():
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    average = MovingAverage(network.train(), 0.9)
    assert not average.module.training
    assert not any(it.requires_grad for it in average.module.parameters())
    assert all(it.requires_grad for it in network.parameters())
    assert len(list(network.parameters())) == 2
    network.train()
    assert not average.module.training


def test_buffers_are_copied_not_averaged():
    network = nn.BatchNorm1d(1)
    average = MovingAverage(network, 0.9)
    for value in (1.0, 5.0):
        network.running_mean.fill_(value)
        network.num_batches_tracked.fill_(int(value))
        average.update()
    assert average.module.running_mean.item() == 5
    assert average.module.num_batches_tracked.item() == 5


def test_it_begins_with_weights_that_were_loaded_meanwhile_but_only_once():
    network = one_weight(1.0)
    average = MovingAverage(network, 0.9)
    nn.init.constant_(network.weight, 7.0)
    average.begin()
    assert average.module.weight.item() == 7
    average.update()
    nn.init.constant_(network.weight, 9.0)
    average.begin()
    assert average.module.weight.item() == 7


def test_the_swap_is_exact_and_undoes_itself():
    torch.manual_seed(0)
    network = nn.BatchNorm1d(3)
    average = MovingAverage(network, 0.9)
    for tensor in network.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) * 10)
    before = [{k: v.clone() for k, v in it.state_dict().items()} for it in (network, average.module)]
    parameters = [id(it) for it in network.parameters()]  # those that an optimizer knows
    average.swap()
    for module, expected in zip((average.module, network), before, strict=True):
        assert all(torch.equal(module.state_dict()[k], v) for k, v in expected.items())
    average.swap()
    for module, expected in zip((network, average.module), before, strict=True):
        assert all(torch.equal(module.state_dict()[k], v) for k, v in expected.items())
    assert [id(it) for it in network.parameters()] == parameters


def test_weights_that_modules_share_are_swapped_once():
    """As in nnU-Net, whose decoder holds the encoder, too."""
    encoder = one_weight(1.0)
    network = nn.ModuleDict({"encoder": encoder, "decoder": nn.ModuleDict({"encoder": encoder})})
    average = MovingAverage(network, 0.9)
    nn.init.constant_(encoder.weight, 2.0)
    assert len(network.state_dict()) == 2
    average.swap()
    assert encoder.weight.item() == 1
    assert average.module["decoder"]["encoder"].weight.item() == 2


def test_the_network_gets_its_weights_back_after_an_error():
    network = one_weight(1.0)
    average = MovingAverage(network, 0.9)
    nn.init.constant_(network.weight, 2.0)

    def fail():
        with average.in_network():
            assert network.weight.item() == 1
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert network.weight.item() == 2


@pytest.mark.parametrize("swapped", [False, True])
def test_a_checkpoint_of_the_average_brings_both_back(swapped):
    network = one_weight()
    average = MovingAverage(network, 0.6)
    follow(average, network, [2.0, 4.0])
    if swapped:
        average.swap()
    state = average.training_state()
    assert state["weights"]["weight"].item() == 4
    fresh = one_weight(3.0)  # as nnU-Net has loaded it: the average
    resumed = MovingAverage(fresh, 0.6)
    resumed.resume(state)
    assert (fresh.weight.item(), resumed.module.weight.item(), resumed.updates) == (4, 3, 2)
    assert follow(resumed, fresh, [8.0]) == pytest.approx([0.6 * 3 + 0.4 * 8])
