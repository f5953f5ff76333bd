"""Every choice and every range is checked where it enters, in Python as on the command line."""

import dataclasses
import inspect
import typing
from pathlib import Path
from typing import Annotated, Literal

import jaxtyping
import pytest

import lsmprobe
from lsmprobe import config as config_module
from lsmprobe.arguments import Within, check, checked
from lsmprobe.errors import SettingsError


@pytest.fixture(autouse=True)
def _types_are_not_checked_for_us(monkeypatch):
    """The suite checks every call's types; a user's Python does not."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


REQUIRED = {  # a value of every field that has no default
    "source": "emobox",
    "folder": Path("f"),
    "model": "m",
    "dataset": "d",
    "name": "emodb",
    "split": "speaker",
    "path": Path("a.h5"),
    "paths": (Path("a.h5"),),
    "out": Path("o"),
    "run": Path("r.json"),
    "runs": ("r.json",),
    "files": (Path("a.wav"),),
    "parts": 2,
}
CONFIGS = {
    name: kind
    for name, kind in vars(config_module).items()
    if inspect.isclass(kind) and dataclasses.is_dataclass(kind)
}


def literals(hint):
    """The choices of a type; an empty list where it has none, or takes any string as well."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return [choice for choice in inner if isinstance(choice, str)]
    if typing.get_origin(hint) in (tuple, list):
        return literals(inner[0])
    found = [choice for one in inner if isinstance(one, type) is False for choice in literals(one)]
    return [] if str in inner else found


def fields_with(what):
    """(config, field, hint) of every field whose type states a choice, or a range."""
    for name, kind in CONFIGS.items():
        hints = typing.get_type_hints(kind, include_extras=True)
        for field in dataclasses.fields(kind):
            hint = hints[field.name]
            is_range = "Within" in str(hint)
            if (what == "range" and is_range) or (what == "choice" and literals(hint)):
                yield pytest.param(kind, field.name, hint, id=f"{name}.{field.name}")


def built(kind, **changed):
    needed = {
        field.name: REQUIRED[field.name]
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    return kind(**(needed | changed))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_checked_when_it_is_built(name):
    assert issubclass(CONFIGS[name], config_module.Config)
    built(CONFIGS[name])


@pytest.mark.parametrize(("kind", "field", "hint"), [*fields_with("choice")])
def test_a_wrong_spelling_is_refused_with_the_nearest(kind, field, hint):
    right = max(literals(hint), key=len)
    flag = f"--{field.replace('_', '-')}"
    with pytest.raises(SettingsError, match=rf"{flag} is '.*'; expected one of .*{right}"):
        built(kind, **{field: right[:-1] + "~"})


@pytest.mark.parametrize(("kind", "field", "hint"), [*fields_with("range")])
def test_a_number_out_of_its_range_is_refused(kind, field, hint):
    for value in (-1e9, 1e9 if field not in ("seed", "split_seed", "random_init") else 1e12):
        with pytest.raises(SettingsError, match=f"--{field.replace('_', '-')} is .*; expected"):
            built(kind, **{field: value})


def test_nan_is_in_no_range():
    with pytest.raises(SettingsError, match="lr is nan"):
        check("lr", float("nan"), Annotated[float, Within(0, 1)])


def test_another_case_means_what_it_says():
    config = built(config_module.ProbeConfig, feature_norm="ZScore", head="Linear")
    assert (config.feature_norm, config.head) == ("zscore", "linear")


def test_a_string_stands_for_a_tuple_of_one():
    config = config_module.ProbeConfig(model="whisper-tiny", dataset="emodb", emotions="anger")
    assert config.model == ("whisper-tiny",)
    assert (config.dataset, config.emotions) == (("emodb",), ("anger",))


MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def functions_with_choices():
    """(function, parameter, a right value) of every public function and method with a choice."""
    for name in lsmprobe.__all__:
        found = getattr(lsmprobe, name)
        if inspect.isfunction(found):
            hints = typing.get_type_hints(inspect.unwrap(found), include_extras=True)
            kinds = inspect.signature(found).parameters
            for parameter, hint in hints.items():
                if parameter == "return" or kinds[parameter].kind in MANY:
                    continue
                if literals(hint):
                    yield pytest.param(found, parameter, hint, id=f"{name}.{parameter}")


@pytest.mark.parametrize(("function", "parameter", "hint"), [*functions_with_choices()])
def test_every_public_function_refuses_a_wrong_spelling_before_it_looks_at_anything_else(
    function, parameter, hint
):
    """What else it needs is left None, which nothing could be computed from."""
    right = max(literals(hint), key=len)
    needed = {
        name: None
        for name, one in inspect.signature(function).parameters.items()
        if one.default is inspect.Parameter.empty and one.kind not in MANY
    }
    with pytest.raises(SettingsError, match=rf"{parameter} is '.*'; expected one of .*{right}"):
        function(**(needed | {parameter: right[:-1] + "~"}))


def test_arguments_reach_the_function_as_their_types_spell_them():
    @checked
    def area(
        shape: Literal["disc", "square"] = "disc",
        *sizes: float,
        measures: tuple[Literal["cka", "svcca"], ...] = (),
        **rest: str,
    ):
        return shape, sizes, measures, rest

    assert area("SQUARE", 1.0, 2.0, measures="CKA", other="CKA") == (
        ("square", (1.0, 2.0), ("cka",), {"other": "CKA"})
    )
    assert area() == ("disc", (), (), {})

    @checked
    def several(*over: Literal["corpus", "model"]):
        return over

    assert several("Corpus", "model") == ("corpus", "model")
    with pytest.raises(SettingsError, match="over is 'corpora'; expected one of"):
        several("model", "corpora")
    with pytest.raises(SettingsError, match="Did you mean 'svcca'"):
        area(measures=("cka", "svca"))
    with pytest.raises(TypeError, match="multiple values"):
        area(shape="disc", *(1.0,))  # noqa: B026
