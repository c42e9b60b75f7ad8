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
    }
    differing = {
        name
        for name in settings.field_names(settings.Settings)
        if getattr(CODE, name) != getattr(FAST, name)
    }
    assert differing == {"preset", *descent}


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
        ({"stop": -1}, "stop=-1 must be a finite number"),
        ({"stop": float("nan")}, "stop=nan must be a finite number"),
        ({"clip": 0}, "clip=0 must be positive"),
        ({"anti_aliasing": "perhaps"}, "anti_aliasing='perhaps' must be"),
        ({"gradient": "scales"}, "unknown gradient 'scales'; did you mean scale"),
        ({"schedule": "linear"}, "unknown schedule 'linear'; did you mean cosine"),
        ({"pool": "sum"}, "unknown pool 'sum'; known: avg, max"),
        ({"alpha": 3}, "unknown setting 'alpha'"),
    ],
)
def test_what_does_not_fit_is_refused(values, message):
    with pytest.raises(InputError) as error:
        settings.override(CODE, values)
    assert message in str(error.value)


def test_unknown_preset():
    with pytest.raises(InputError, match="unknown settings 'papr'; did you mean paper"):
        settings.preset("papr")
    assert settings.preset(PAPER) is PAPER


def test_record_holds_only_the_style_transfer_in_question():
    assert "purposeful" not in settings.as_dict(CODE)
    record = settings.as_dict(CODE, "gatys")
    assert record["alpha"] == 10
    assert record["content"] == dataclasses.asdict(CODE.gatys.content)
