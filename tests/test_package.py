"""The front door of the package: the names that it gives, and where those of earlier versions went."""

import importlib
import re

import pytest

import ddlib


def test_every_public_name_is_there_and_none_twice():
    assert all(hasattr(ddlib, name) for name in ddlib.__all__)
    assert sorted(set(ddlib.__all__)) == sorted(ddlib.__all__)
    assert not set(ddlib.__all__) & set(ddlib.MOVED)


@pytest.mark.parametrize("name", ddlib.MOVED)
def test_a_name_that_moved_says_where_it_is_now(name):
    place = ddlib.MOVED[name]
    with pytest.raises(AttributeError, match=re.escape(f"ddlib.{name} has moved: from {place} import {name}")):
        getattr(ddlib, name)
    assert callable(getattr(importlib.import_module(place), name))


def test_what_earlier_versions_gave_is_here_or_says_where_it_is():
    """The public names of the first version, by hand."""
    earlier = "BASE_METHODS DATASETS GUIDANCE NETWORKS PTM SELECTIONS STRATEGIES Dataset Distilled Split SyntheticSet"
    earlier += " build_network check_parameters distill evaluate full_data keep_freed_memory load_dataset"
    earlier += " load_imagenet_ptm load_records read_record select_real train_ptms write_record"
    assert set(earlier.split()) <= {*ddlib.__all__, *ddlib.MOVED}


def test_a_name_that_never_was_is_an_ordinary_error():
    with pytest.raises(AttributeError, match="module 'ddlib' has no attribute 'distil'"):
        ddlib.distil  # noqa: B018
    assert not hasattr(ddlib, "make_signals")
