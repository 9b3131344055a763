"""Points of a sweep resized to cost the same, and nothing else about them changed."""

import pytest
from memx.errors import MemxError
from memx.experiments.config.base import to_yaml
from memx.experiments.config.loading import load_config
from memx.experiments.config.matching import match_points, sizes_of
from memx.experiments.config.points import plan, points
from memx.memory_layers.config import MemoryConfig


def of_kinds(by, **changes):
    """One point of each kind of the demo's base, to be matched."""
    variants = {
        "dense": {"memory.kind": "dense"},
        "memory": {"memory.slots": 4096},
        "memory+": {"memory.kind": "memory+", "memory.slots": 4096, "memory.layers": [0, 2]},
        "peer": {"memory.kind": "peer", "memory.slots": 4096},
        "moe": {"memory.kind": "moe", "memory.experts": 4, "memory.layers": None},
        "moe, one layer": {"memory.kind": "moe", "memory.experts": 4, "memory.expert_width": 50},
        "beside": {"memory.slots": 4096, "memory.insertion": "beside"},
    }
    chosen = {**variants, **changes.pop("variants", {})}
    sets = [("match.by", by), ("sweep", {}), ("variants", chosen), *changes.items()]
    return load_config("facts", sets)


LARGE = {"memory.slots": 65536, "memory.qk_norm": False}  # no other point is this model, at any size


def unmatched(config):
    return points(config.model_copy(update={"match": config.match.model_copy(update={"by": "none"})}))


def flops(config):
    return {point.variant: sizes_of(point).flops for point in points(config)}


def test_rivals_cost_what_the_dense_model_costs_times_what_is_asked():
    config = load_config("rivals")
    target = sizes_of(config.model_copy(update={"memory": MemoryConfig(kind="dense")})).flops
    found = points(config)
    assert {point.memory.kind for point in found} == {"dense", "memory", "memory+", "peer", "moe"}
    for point in found:
        assert sizes_of(point).flops == pytest.approx(point.match.times * target, rel=0.01), point.variant


@pytest.mark.parametrize("times", [0.5, 2, 10])
def test_a_dense_model_is_widened_as_a_whole_and_keeps_the_name_of_its_base(times):
    wide = {"memory.kind": "dense", "match.times": times, "match.resize": "width"}
    config = of_kinds("flops", variants={"wide": wide})
    found = {point.variant: point for point in points(config)}
    assert sizes_of(found["wide"]).flops == pytest.approx(times * sizes_of(found["dense"]).flops, rel=0.01)
    model, base = found["wide"].model, found["dense"].model
    assert model.title == base.title and model.heads == base.heads and (model.width > base.width) == (times > 1)
    assert model.feed_forward_width / model.width == pytest.approx(base.feed_forward_width / base.width, rel=0.15)


def test_widths_suit_keys_and_other_matches_are_refused():
    changes = {"memory.slots": 4096, "memory.key_width": None, "match.times": 1.5, "match.resize": "width"}
    config = of_kinds("flops", variants={"wide": changes}, **{"model.heads": 1})
    assert next(point for point in points(config) if point.variant == "wide").model.width % 4 == 0
    with pytest.raises(MemxError, match=r"match\.resize width needs match\.by flops"):
        load_config("facts", [("match.by", "parameters"), ("match.resize", "width")])


@pytest.mark.parametrize("width", [64, 96, 256])
def test_every_kind_meets_the_flops_of_every_base(width):
    found = flops(of_kinds("flops", **{"model.width": width}))
    assert all(cost == pytest.approx(found["dense"], rel=0.01) for cost in found.values()), found


def test_matching_by_parameters_resizes_what_each_kind_has_to_resize():
    config = of_kinds("parameters", variants={"dense": LARGE, "plain": {"memory.kind": "dense"}})
    found = {point.variant: point for point in points(config)}
    target = sizes_of(found["dense"]).parameters_total
    for name, point in found.items():
        close = 0.2 if "moe" in name else 0.01
        assert sizes_of(point).parameters_total == pytest.approx(target, rel=close), name
    assert found["plain"].model.feed_forward > 1000 and found["memory"].memory.slots > 60_000
    assert found["moe"].memory.experts > 4 and found["memory"].model == found["dense"].model


def test_the_first_point_keeps_its_size_and_times_counts_from_it():
    config = of_kinds("parameters", **{"match.times": 2.0})
    first = unmatched(config)[0]
    for point in points(config):
        assert sizes_of(point).parameters_total == pytest.approx(2 * sizes_of(first).parameters_total, rel=0.15)
    same = of_kinds("parameters", variants={"dense": LARGE})
    assert sizes_of(points(same)[0]) == sizes_of(unmatched(same)[0])


@pytest.mark.parametrize("by", ["flops", "parameters"])
def test_a_matched_point_keeps_everything_else_and_is_matched_once(by):
    config = of_kinds(by, **{"match.times": 1.5})
    sizes = {"feed_forward", "slots", "experts", "expert_width"}

    def rest(point):
        tree = point.model_dump(exclude={"experiment"})
        for section in ("model", "memory"):
            tree[section] = {key: value for key, value in tree[section].items() if key not in sizes}
        return {**tree, "match": point.match.times}

    matched = points(config)
    assert [rest(point) for point in matched] == [rest(point) for point in unmatched(config)]
    assert {point.match.by for point in matched} == {"none"}
    assert match_points(matched) == matched


@pytest.mark.parametrize("more", [{}, {"match.resize": "width"}])
def test_the_own_config_of_a_matched_run_loads_again_and_is_the_same_run(more, tmp_path):
    changes = {"sweep": {}, "memory.slots": 4096, "match.by": "flops", "match.times": 2, **more}
    (run,) = plan(load_config("facts", list(changes.items())))
    (tmp_path / "config.yaml").write_text(to_yaml(run.config))
    assert plan(load_config(str(tmp_path / "config.yaml"))) == [run]
    (longer,) = plan(load_config(str(tmp_path / "config.yaml"), [("training.steps", 7)]))
    assert longer.config.model == run.config.model and longer.name != run.name


def test_points_that_do_not_ask_for_it_are_left_alone():
    config = load_config("facts")
    assert points(config) == unmatched(config)
    dense = {"memory.kind": "dense"}
    variants = {"memory": {}, "dense": dense, "dense x3": {**dense, "match.by": "flops", "match.times": 3}}
    some = load_config("facts", [("sweep", {}), ("memory.slots", 4096), ("variants", variants)])
    found = {point.variant: point for point in points(some)}
    assert found["memory"].model.feed_forward is None
    assert sizes_of(found["dense x3"]).flops == pytest.approx(3 * sizes_of(found["dense"]).flops, rel=0.01)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"match.by": "parameters"}, "needs a second run to compare with"),
        ({"match.by": "flops", "memory.heads": 64}, "cannot be resized to"),
        ({"match.by": "flops", "match.times": 0.01}, "cannot be resized to"),
        ({"match.by": "flops", "memory.layers": [0, 1, 2, 3], "match.times": 5}, "cannot be resized to"),
    ],
)
def test_what_cannot_be_matched_is_one_line(sets, message):
    with pytest.raises(MemxError, match=message) as error:
        load_config("facts", [("memory.slots", 4096), *sets.items()])
    assert error.value.hint and "\n" not in error.value.message
