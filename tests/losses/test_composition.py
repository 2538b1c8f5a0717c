"""Any combination of options: the function, the Module, the fused loss and the slow version agree."""

from unittest.mock import patch

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_dml import losses
from nnunet_dml.losses import CrossEntropyOverlapLoss, _logit_sums
from tests.reference import losses as reference

FORMS = {
    "dml": (losses.dice_semimetric_loss, losses.DiceSemimetricLoss),
    "jml": (losses.jaccard_metric_loss, losses.JaccardMetricLoss),
    "ctl": (losses.compatible_tversky_loss, losses.CompatibleTverskyLoss),
    "sdl": (losses.soft_dice_loss, losses.SoftDiceLoss),
    "sjl": (losses.soft_jaccard_loss, losses.SoftJaccardLoss),
    "lovasz": (losses.lovasz_softmax_loss, losses.LovaszSoftmaxLoss),
}
OWN = {
    "dml": st.fixed_dictionaries({"variant": st.sampled_from([1, 2])}),
    "jml": st.fixed_dictionaries({"variant": st.sampled_from([1, 2])}),
    "ctl": st.sampled_from(
        [
            {"alpha": 0.3, "beta": 0.7},
            {"alpha": 0.5, "beta": 1.25, "gamma": 1.5},
            {"alpha": 0.9, "beta": 0.2, "power": 2.0},
        ]
    ),
    "sdl": st.just({}),
    "sjl": st.fixed_dictionaries({"norm": st.sampled_from([1, 2])}),
    "lovasz": st.just({}),
}
SLOW = {
    "dml": reference.dml,
    "jml": reference.jml,
    "ctl": reference.ctl,
    "sdl": reference.sdl,
    "sjl": reference.sjl,
    "lovasz": reference.lovasz,
}
shared = st.fixed_dictionaries(
    {
        "log": st.booleans(),
        "reduction": st.sampled_from(["batch", "image", "class", {"batch": 0.5, "class": 1.0, "image": 0.0}]),
        "active": st.sampled_from(["all", "present", "prob", "label", "both"]),
        "threshold": st.sampled_from([0.0, 0.2, 0.45, 0.7]),
        "class_weights": st.sampled_from([None, (1.0, 0.5, 2.0), (0.25, 0.0, 1.0)]),
    }
)
any_form = st.sampled_from(sorted(FORMS)).flatmap(lambda name: st.tuples(st.just(name), OWN[name]))


def case(seed, *, hard=False, activation="softmax"):
    """Logits, target and mask in which classes are missing here and there."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, 3, 2, 3, generator=generator, dtype=torch.float64)
    target = (2.5 * torch.randn(3, 3, 2, 3, generator=generator, dtype=torch.float64)).softmax(1)
    if activation == "sigmoid":
        target = target.sqrt()  # regions: the sum is above one
    if hard:
        target = (target == target.amax(1, keepdim=True)).double()
    mask = torch.rand(3, 1, 2, 3, generator=generator) > 0.4
    mask[0] = True
    mask[1] = False  # an image without a valid voxel
    return logits, target, mask


def slow_overlap(name, own, options, x, y, mask):
    return reference.over_sets(
        lambda a, b: SLOW[name](a, b, **own),
        x.numpy(),
        y.numpy(),
        reduction=options["reduction"],
        mode=options["active"],
        threshold=options["threshold"],
        weights=options["class_weights"],
        mask=None if mask is None else mask[:, 0].numpy(),
        log=options["log"],
    )


@settings(max_examples=60, deadline=None)
@given(any_form, shared, st.integers(0, 30), st.booleans())
def test_function_module_and_slow_version_agree(form, options, seed, with_mask):
    name, own = form
    logits, y, mask = case(seed, hard=name == "lovasz")
    mask = mask if with_mask else None
    x = logits.softmax(1).requires_grad_()
    exact = {} if name == "lovasz" else {"smooth": 0.0}
    function, module = FORMS[name]
    value = function(x, y, mask=mask, **own, **options, **exact)
    built = module(**own, **options, **exact)
    assert torch.equal(built(x, y, mask), value)
    np.testing.assert_allclose(value.item(), slow_overlap(name, own, options, x.detach(), y, mask), rtol=1e-9)
    (gradient,) = torch.autograd.grad(value, x)
    assert torch.isfinite(gradient).all()
    if mask is not None:
        assert (gradient.masked_select(~mask.bool()) == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    any_form,
    shared,
    st.sampled_from(["softmax", "sigmoid"]),
    st.booleans(),
    st.integers(0, 30),
    st.booleans(),
    st.sampled_from([1 << 19, 18]),
)
def test_training_loss_is_the_sum_of_slow_parts(
    form, options, activation, background, seed, with_mask, piece
):
    name, own = form
    background = background and activation == "softmax"
    first = 1 if activation == "softmax" and not background else 0
    logits, y, mask = case(seed, hard=name == "lovasz", activation=activation)
    mask = mask if with_mask else None
    exact = {} if name == "lovasz" else {"smooth": 0.0}
    loss = CrossEntropyOverlapLoss(
        name, activation=activation, background=background, **own, **options, **exact
    )
    x = logits.softmax(1) if activation == "softmax" else logits.sigmoid()
    weights = options["class_weights"]
    sliced = options | {"class_weights": None if weights is None else weights[first:]}
    delta = slow_overlap(name, own, sliced, x[:, first:], y[:, first:], mask)
    slow_entropy = (
        reference.weighted_cross_entropy if activation == "softmax" else reference.binary_cross_entropy
    )
    valid = np.ones((3, 2, 3), bool) if mask is None else mask[:, 0].numpy()
    entropy = slow_entropy(logits.numpy(), y.numpy(), None if weights is None else np.array(weights), valid)
    expected = 0.5 * entropy + 1.5 * (delta if options["log"] else delta - 1)

    logits.requires_grad_()
    with patch.object(_logit_sums, "PIECE_CPU", piece):
        value = loss(logits, y, mask)
        np.testing.assert_allclose(value.item(), expected, rtol=1e-9)
        (gradient,) = torch.autograd.grad(value, logits)
    # a target that wants a gradient takes the way by autograd
    slowly = loss(logits, y.clone().requires_grad_(), mask)
    torch.testing.assert_close(slowly, value)
    torch.testing.assert_close(torch.autograd.grad(slowly, logits)[0], gradient)
    assert torch.isfinite(gradient).all()


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["dml", "jml", "ctl"]).flatmap(lambda name: st.tuples(st.just(name), OWN[name])),
    shared,
    st.integers(0, 30),
    st.sampled_from([0.0, 1e-5]),
)
def test_least_at_the_target(form, options, seed, smooth):
    """The same classes count at either point, so that the one is not made smaller by dropping one."""
    (name, own), options = form, options | {"threshold": 0.0}
    function, _ = FORMS[name]
    other, y, mask = case(seed)
    x = other.softmax(1)
    at_target = function(y, y, mask=mask, smooth=smooth, **own, **options)
    assert at_target.item() == 0
    for step in (1e-3, 0.1, 1.0):
        assert function(y + step * (x - y), y, mask=mask, smooth=smooth, **own, **options).item() >= 0
    away = function(x, y, mask=mask, smooth=smooth, **own, **options | {"active": "all"})
    assert away.item() > 1e-4


@settings(max_examples=15, deadline=None)
@given(any_form, shared, st.sampled_from(["softmax", "sigmoid"]), st.integers(0, 30))
def test_gradcheck(form, options, activation, seed):
    name, own = form
    logits, y, mask = case(seed, hard=name == "lovasz", activation=activation)
    loss = CrossEntropyOverlapLoss(name, activation=activation, **own, **options)
    logits, y, mask = (t[:, :, :1] for t in (logits, y, mask))
    logits = logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, y, mask), (logits,))
