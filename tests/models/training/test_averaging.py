import torch
from hypothesis import given, strategies as st

from tests.models.conftest import MakeLearner, assert_same, pixels, states_of, tiny_network
from unfreeze.models.settings import Stage
from unfreeze.models.training.checkpoints import capture, restore, restore_between_stages
from unfreeze.models.training.loop import fit
from unfreeze.models.training.network import WeightAverage

FULL = Stage(name="full", train="all", cycles=2)
TRAIN, VALID = pixels(20), pixels(11, seed=1)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.floats(0.5, 0.99))
def test_the_average_follows_its_formula(values, decay):
    network = tiny_network()
    parameter = network.head[1].bias
    average, expected = WeightAverage(network, decay), float(parameter[0].detach())
    for number, value in enumerate(values, start=1):
        with torch.no_grad():
            parameter.fill_(value)
        average.update()
        kept = min(decay, (1 + number) / (10 + number))
        expected = kept * expected + (1 - kept) * value
    name = "head.1.bias"
    torch.testing.assert_close(float(average.values[name][0]), expected, rtol=1e-4, atol=1e-4)


def test_the_network_has_its_own_weights_again_after_the_averages(make_learner: MakeLearner):
    learner = make_learner(FULL, ema=0.9)
    for _ in fit(learner, FULL.model_copy(update={"cycles": 1}), TRAIN, VALID):
        pass
    learner.prepare(FULL, 0, 0.01)
    learner.set_lrs(1.0)
    before = states_of(learner)
    learner.train_batch(*TRAIN.gather(torch.arange(8), None), TRAIN)
    trained = states_of(learner)
    with learner.averaged():
        averaged = states_of(learner)
    assert_same(states_of(learner), trained)
    weight = "body.blocks.0.0.weight"
    assert not torch.equal(averaged[weight], trained[weight])
    torch.testing.assert_close(averaged[weight], before[weight].lerp(trained[weight], 1 - 2 / 11))


def test_a_stage_ends_with_the_averaged_weights_it_was_validated_with(make_learner: MakeLearner):
    learner = make_learner(FULL, ema=0.9)
    *_, last = fit(learner, FULL, TRAIN, VALID)
    assert learner.validate(VALID) == last.metrics


def test_a_training_with_an_average_resumes_bit_for_bit_from_every_yield(make_learner: MakeLearner):
    whole = make_learner(FULL, ema=0.9)
    checkpoints = [capture(whole) for _ in fit(whole, FULL, TRAIN, VALID)]
    for checkpoint in checkpoints[:-1]:
        resumed = make_learner(FULL, ema=0.9)
        restore(resumed, checkpoint)
        for _ in fit(resumed, FULL, TRAIN, VALID):
            pass
        assert_same(states_of(resumed), states_of(whole))
    after = make_learner(ema=0.9)
    restore_between_stages(after, checkpoints[-1])
    assert_same(states_of(after), states_of(whole))
