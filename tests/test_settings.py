"""The presets hold DESIGN's values; overrides are typed and checked."""

import dataclasses

import pytest

from fmi import settings
from fmi.errors import InputError
from fmi.settings import CODE, FAST, PAPER, Weighting


def test_presets_differ_only_where_the_text_says_otherwise():
    differing = {
        name
        for name in settings.field_names(settings.Settings)
        if getattr(CODE, name) != getattr(PAPER, name)
    }
    assert differing == {
        "preset",
        "resize_mode",
        "anti_aliasing",
        "content_scale",
        "style_size",
        "shares",
        "code_weight",
        "purposeful",
        "gatys",
    }


def test_fast_has_codes_objective():
    descent = {
        "steps",
        "stop",
        "learning_rate",
        "momentum",
        "last_momentum",
        "gradient",
        "schedule",
        "warm_up",
    }
    differing = {
        name
        for name in settings.field_names(settings.Settings)
        if getattr(CODE, name) != getattr(FAST, name)
    }
    assert differing == {"preset", "purposeful", "gatys", *descent}
    for name in ("purposeful", "gatys"):
        own = {"descent", "steps"}
        one, other = (dataclasses.asdict(getattr(preset, name)) for preset in (CODE, FAST))
        assert {key for key in one if one[key] != other[key]} <= own


def test_weightings_are_the_factors_of_the_equations():
    channels, positions = 64, 1000
    assert CODE.purposeful.content(channels, positions) == pytest.approx(1 / 2000)
    assert CODE.purposeful.style(channels, positions) == pytest.approx(1 / (2 * 64 * 1000))
    assert CODE.gatys.content(channels, positions) == 0.5
    assert CODE.gatys.style(channels, positions) == pytest.approx(1 / (4 * 64**2 * 1000))
    assert PAPER.gatys.style(channels, positions) == pytest.approx(1 / (4 * 64**2 * 1000**2))
    assert PAPER.purposeful.style(channels, positions) == 1
    assert Weighting(3, channels=1)(2, 5) == 1.5


def test_style_transfer_has_its_own_weight_decay():
    assert settings.override(CODE, {}).weight_decay == 5e-4
    assert settings.override(CODE, {}, "gatys").weight_decay == 5e-3
    assert settings.override(CODE, {"weight_decay": "0.1"}, "purposeful").weight_decay == 0.1


def test_text_becomes_the_fields_type():
    values = {"steps": "20", "stop": "0", "anti_aliasing": "yes", "pool": "max"}
    found = settings.override(CODE, values)
    assert (found.steps, found.stop, found.anti_aliasing, found.pool) == (20, 0.0, True, "max")
    style = settings.override(CODE, {"style_layers": "relu1_1,relu2_1"}, "purposeful")
    assert style.purposeful.style_layers == ("relu1_1", "relu2_1")
    assert style.gatys == CODE.gatys


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"step": 5}, "unknown setting 'step'; did you mean steps or stop"),
        ({"steps": "many"}, "steps='many' must be a whole number, such as 1000"),
        ({"steps": 2.5}, "steps=2.5 must be a whole number"),
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"steps": True}, "steps=True must be a number"),
        ({"steps": float("inf")}, "steps=inf must be a finite number"),
        ({"steps": "9" * 5000}, "must be a whole number with fewer digits"),
        ({"steps": 10**5000}, "must be a number with fewer digits"),
        ({"steps": [3]}, "steps=[3] must be a whole number"),
        ({"stop": -1}, "stop=-1 must be at least 0"),
        ({"stop": float("nan")}, "stop=nan must be a finite number"),
        ({"clip": 0}, "clip=0 must be greater than 0"),
        ({"anti_aliasing": "perhaps"}, "anti_aliasing='perhaps' must be"),
        ({"gradient": "scales"}, "unknown gradient 'scales'; did you mean scale"),
        ({"schedule": "linear"}, "unknown schedule 'linear'; known: steps, cosine"),
        ({"pool": "sum"}, "unknown pool 'sum'; known: avg, max"),
        ({"pool": 3}, "pool=3 must be one of avg, max"),
        ({"alpha": 3}, "unknown setting 'alpha'"),
    ],
)
def test_what_does_not_fit_is_refused(values, message):
    with pytest.raises(InputError) as error:
        settings.override(CODE, values)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "momentum",
        "last_momentum",
        "learning_rate",
        "weight_decay",
        "start",
        "content_scale",
        "style_scale",
        "code_weight",
        "decay",
        "denoise",
        "clip",
        "stop",
        "long_edge",
        "steps",
        "alpha",
        "beta",
    ],
)
@pytest.mark.parametrize("value", [2e30, "1e300", float("nan"), float("inf"), -1e30])
def test_values_that_cannot_work_are_refused(name, value):
    """They would end in black or noisy pictures, or outside of float32."""
    with pytest.raises(InputError, match=f"^{name}="):
        settings.override(CODE, {name: value}, "gatys")


def test_the_presets_and_changes_of_them_are_within_the_bounds():
    for chosen in settings.PRESETS.values():
        again = dataclasses.replace(chosen, momentum=0.5)
        assert (again.momentum, again.clip) == (0.5, chosen.clip)
    with pytest.raises(ValueError, match="momentum"):
        dataclasses.replace(CODE, momentum=2)


def test_a_list_is_not_settings():
    with pytest.raises(InputError, match=r"settings=\['code'\] must be 'code'"):
        settings.preset(["code"])


def test_unknown_preset():
    with pytest.raises(InputError, match="unknown settings 'papr'; did you mean paper"):
        settings.preset("papr")
    assert settings.preset(PAPER) is PAPER


def test_record_holds_only_the_style_transfer_in_question():
    assert "purposeful" not in settings.as_dict(CODE)
    record = settings.as_dict(CODE, "gatys")
    assert record["alpha"] == 10
    assert record["content"] == dataclasses.asdict(CODE.gatys.content)


@pytest.mark.parametrize("kind", [settings.Settings, settings.Transfer])
def test_every_value_that_can_be_given_is_explained(kind):
    told = {**settings.about(settings.Settings), **settings.about(kind)}
    assert set(settings.overridable(kind)) <= set(told)
    assert told["pool"] == "Pooling of the VGG family"
